"""What `make bench` says about what it has measured."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import chart, goals, live, machine, report, ssh
from benchmarks.figures import Figures, Measured


def figures_of(**values: float) -> Figures:
    """Figures of one round, by name."""
    figures = Figures()
    figures.add("all", [Measured(name=name, value=value, unit="ms") for name, value in values.items()])
    return figures


def row_of(what: str, figures: Figures) -> list[str]:
    """The cells of a goal's first row."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in goals.table(figures).splitlines()]
    return next(row for row in rows if row[0] == what)


@pytest.mark.parametrize("value, met, reached", [(2.6, "no", "no"), (2.5, "yes", "no"), (1.0, "yes", "yes")])
def test_a_goal_is_met_at_its_bound(value: float, met: str, reached: str) -> None:
    """What must be and what is aimed at are told apart; a bound itself is good enough."""
    row = row_of("start", figures_of(**{"start (process), p50": value}))
    assert (row[3], row[5]) == (met, reached)


@pytest.mark.parametrize("value, met, reached", [(390, "no", "no"), (400, "yes", "no"), (800, "yes", "yes")])
def test_a_goal_beside_another_figure_is_a_ratio(value: float, met: str, reached: str) -> None:
    """The more the better, held against what the machine can do in the same run."""
    row = row_of(live.LIVE, figures_of(**{live.LIVE: value, machine.TLS: 1000}))
    assert (row[3], row[5]) == (met, reached)
    assert row[1].endswith(f"x {machine.TLS}")


def test_a_goal_that_was_not_measured_is_neither_met_nor_missed() -> None:
    """As where the figure beside it could not be had."""
    row = row_of(live.LIVE, figures_of(**{live.LIVE: 500}))
    assert (row[1], row[3], row[5]) == ("not measured", "", "")


def test_what_is_left_out_is_said_with_its_reason() -> None:
    """A table without OpenSSH says why."""
    figures = figures_of(one=1.0)
    figures.leave_out("OpenSSH", "not installed")
    assert "**OpenSSH**" in figures.table()
    assert "not installed" in figures.table()


def test_the_plot_is_an_svg_with_a_bar_for_each_figure_that_there_is() -> None:
    """Also where figures of a panel are one and the same power of ten."""
    drawn = ET.fromstring(chart.svg(figures_of(**{machine.TLS: 100, f"{ssh.SHARED}: {ssh.OUTPUT}": 100})))  # noqa: S314 - our own
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert machine.TLS in texts
    assert f"{ssh.SHARED}: {ssh.OUTPUT}" in texts
    assert live.LIVE not in texts


def test_a_report_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    """The page's own words stay; a page without a place for the report is left alone."""
    page = tmp_path / report.PAGE
    page.write_text(
        "before\n<!-- begin of what `make bench` writes -->\nold\n<!-- end of what `make bench` writes -->\nafter\n"
    )
    for text in ("first", "second"):
        report.write(tmp_path, text, figures_of(one=1.0))
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert written.count("second") == 1
    assert "old" not in written
    assert "first" not in written
    page.write_text("no place\n")
    with pytest.raises(ValueError, match=report.PAGE):
        report.write(tmp_path, "third", figures_of(one=1.0))
    assert page.read_text() == "no place\n"


def test_the_page_of_this_project_has_a_place_for_the_report() -> None:
    """So that a run of many minutes is not in vain."""
    page = Path(__file__).parents[2] / "docs" / report.PAGE
    assert "<!-- begin of what `make bench` writes -->\n" in page.read_text()
    assert "<!-- end of what `make bench` writes -->\n" in page.read_text()
