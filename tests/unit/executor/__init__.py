"""Tests of the executor's pure parts."""
