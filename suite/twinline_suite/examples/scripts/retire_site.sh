#!/bin/sh
# ---
# RightScript Name: retire-site
# Description: Takes the site away before its server ends.
# Inputs: {}
# ...
set -eu

folder=$HOME/site
files=$(ls "$folder" | wc -l | tr -d ' ')
rm -r "$folder"

echo "the site is gone: $files files removed"
