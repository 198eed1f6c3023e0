"""Grafana's dashboards as code: `python -m tools.dashboards` writes deploy/grafana.

A dashboard is a page of panels; a panel is a question in one of a few shapes (`queries`), asked of
the smallest table that can answer over the range (`ranges`). Names, measures and filters are those
of `flowvis.questions` and `flowvis.filters`, so that a panel and the console count the same.
"""
