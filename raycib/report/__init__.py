"""From finished sweeps to tables, figures and a report, each number with its uncertainty.

Nothing here imports torch, Ray or MLflow: a laptop without them can analyse a cluster's results.
"""
