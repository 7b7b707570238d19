#!/bin/sh
# ---
# RightScript Name: configure-site
# Description: Writes the site's configuration into a file on the host.
# Inputs:
#   SITE_NAME:
#     Category: Site
#     Description: What the site is called
#     Required: true
#   SITE_GREETING:
#     Category: Site
#     Description: How visitors are greeted
#     Default: text:Hello
# ...
set -eu

folder=$HOME/site
mkdir -p "$folder"
printf 'name=%s\ngreeting=%s\n' "$SITE_NAME" "$SITE_GREETING" >"$folder/site.conf"

echo "wrote site.conf:"
cat "$folder/site.conf"
