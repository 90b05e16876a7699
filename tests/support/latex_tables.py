"""What a LaTeX table holds, in whose parts a broad or a long one is printed."""

import re

_TABULAR = re.compile(
    r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}\n\\toprule\n(.*?)\\bottomrule", re.DOTALL
)


def assert_cells_of_text(latex: str) -> None:
    """Each row has as many cells as its part has columns, and nothing in them is LaTeX's own but
    signs of ours, such as $\\le$."""
    tabulars = _TABULAR.findall(latex)
    assert tabulars
    for shape, body in tabulars:
        rows = body.replace("\\midrule\n", "").splitlines()
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(shape) - 1}
        printed = re.sub(r"\$(-|\\[a-z]+)\$", "", body)
        assert not re.search(r"(?<!\\)[_%$]", printed)
