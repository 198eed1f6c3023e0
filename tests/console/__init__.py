"""The console in Debian's Chromium, on an aggregator that really runs."""
