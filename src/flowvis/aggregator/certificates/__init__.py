"""The aggregator as its cluster's certificate authority."""
