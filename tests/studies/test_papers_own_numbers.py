"""What docs/findings.md says the CIB paper's tables do not agree on, computed from these tables."""

from pathlib import Path

from scipy import stats

SAID = " ".join((Path(__file__).parents[2] / "docs" / "findings.md").read_text().split())
SAID = SAID.partition("### Where the papers disagree with themselves")[2]
PROMPTS = 520
HRR = {
    # Table 2: mean and sample standard deviation of three runs, LoRA, O-LoRA, CIB
    "Qwen2.5": ((36.7, 13.6), (16.5, 19.7), (4.7, 2.9)),
    "Llama-3.1": ((44.2, 22.5), (23.3, 28.0), (4.9, 2.3)),
    "Qwen3": ((16.6, 7.7), (6.8, 6.5), (1.4, 1.7)),
}
CIB_IN_TABLE_1 = ((52.9, 74.8, 48.4, 42.7), (55.3, 79.9, 57.3, 50.9), (45.9, 20.9, 47.8, 32.3))
"""ARC-C, GSM8K, ToxiGen and TruthfulQA of Llama-3.1, Qwen2.5 and Llama-2."""


def given(rate: float) -> bool:
    """Whether some number of 520 answers is this rate, in % to one decimal."""
    return any(abs(100 * k / PROMPTS - rate) <= 0.05 for k in range(PROMPTS + 1))


def welch(one: tuple[float, float], other: tuple[float, float]) -> float:
    return float(stats.ttest_ind_from_stats(*one, 3, *other, 3, equal_var=False).pvalue)


def test_rates_that_520_prompts_cannot_give():
    assert "1.4, 3.4, 19.3, 21.4, 24.7 and 25.5 % (Table 1) and 3.0 % (5.3)" in SAID
    assert not any(map(given, (1.4, 3.4, 19.3, 21.4, 24.7, 25.5, 3.0)))
    assert all(map(given, (21.3, 11.0, 8.1, 4.8, 1.5, 16.7, 15.4, 6.7, 2.1, 0.8, 5.0, 2.5, 1.2)))


def test_margins_and_means_of_the_tables():
    assert f"{25.5 / 4.8:.1f} and {24.7 / 1.5:.1f} times in Table 1" in SAID
    assert f"{100 * 1.2 / 1.3:.1f} % by the losses" in SAID
    assert f"is {6.8 / 1.4:.1f} times in Table 2" in SAID
    means = [sum(row) / 4 + 1e-9 for row in CIB_IN_TABLE_1]
    assert f"{means[0]:.1f}, {means[1]:.1f} and {means[2]:.1f}" in SAID
    assert round(100 * 5945 / 11873, 1) == 50.1


def test_what_three_runs_tell():
    p = {name: (welch(cib, o_lora), welch(cib, lora)) for name, (lora, o_lora, cib) in HRR.items()}
    apart = [f"{of_o_lora:.2f}" for of_o_lora, _ in p.values()]
    assert "p = {}, {} and {}".format(*apart) in SAID
    assert "have {}, {} and {}".format(*(f"{of_lora:.3f}" for _, of_lora in p.values())) in SAID
