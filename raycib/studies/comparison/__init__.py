"""Which method is best: tables, pairs, figures and claims of a comparison or an ablation."""
