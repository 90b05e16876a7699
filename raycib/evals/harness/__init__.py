"""Benchmarks of lm-eval (EleutherAI's evaluation harness) on models that are in memory or behind a
warm engine. Its own code makes the prompts, cuts the tokens and scores; only here is it imported.
"""
