"""Dashboards of Kibana over the indices of deploy/logstash, written as saved objects.

They are the seven of the collector that Antrea had until 1.7, with its titles and panels. What is
counted is not the same: every panel adds up what records have of their own interval, so that a
connection of many records counts once.
"""
