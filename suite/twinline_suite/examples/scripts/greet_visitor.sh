#!/bin/sh
# ---
# RightScript Name: greet-visitor
# Description: Greets somebody with the site's own words, and shows the page.
# Inputs:
#   VISITOR:
#     Category: Site
#     Description: Who comes by
#     Required: true
# ...
set -eu

folder=$HOME/site
greeting=$(sed -n 's/^greeting=//p' "$folder/site.conf")

echo "$greeting, $VISITOR!"
echo "Our page:"
sed 's/^/  /' "$folder/index.html"
echo "It has the checksum $(cksum <"$folder/index.html" | cut -d ' ' -f 1)."
