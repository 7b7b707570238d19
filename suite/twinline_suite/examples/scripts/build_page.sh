#!/bin/sh
# ---
# RightScript Name: build-page
# Description: Makes the site's page from what configure-site wrote.
# Inputs: {}
# ...
set -eu

folder=$HOME/site
name=$(sed -n 's/^name=//p' "$folder/site.conf")
greeting=$(sed -n 's/^greeting=//p' "$folder/site.conf")
printf '<h1>%s from %s</h1>\n' "$greeting" "$name" >"$folder/index.html"

echo "built index.html: $(wc -c <"$folder/index.html" | tr -d ' ') bytes"
