"""Pictures are well-formed SVG with a point for every figure."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from benchmarks.plot import HEIGHT, WIDTH, Panel, Series, render_svg

SVG = "{http://www.w3.org/2000/svg}"


def panel(*series: Series) -> Panel:
    return Panel(title="a < b & c", x_label="x", y_label="y", series=series)


def test_picture_is_well_formed_and_has_every_point_inside() -> None:
    curve = Series(name="one", points=[(1, 0.05), (10, 3.0), (1_000_000, 990.0)])
    flat = Series(name="two", points=[(100, 1.0)])
    root = ET.fromstring(render_svg([panel(curve, flat), panel(curve)]))
    circles = list(root.iter(f"{SVG}circle"))
    assert len(circles) == 7
    assert all(0 <= float(each.attrib["cx"]) <= WIDTH for each in circles)
    assert all(0 <= float(each.attrib["cy"]) <= HEIGHT for each in circles)


def test_higher_cost_is_drawn_higher() -> None:
    curve = Series(name="one", points=[(1, 1.0), (10, 50.0)])
    first, last = ET.fromstring(render_svg([panel(curve)])).iter(f"{SVG}circle")
    assert float(last.attrib["cy"]) < float(first.attrib["cy"])
    assert float(last.attrib["cx"]) > float(first.attrib["cx"])


def test_panel_without_figures_says_so() -> None:
    assert "not measured" in render_svg([panel(Series(name="one", points=[]))])
