"""Letters in figures: installed fonts that have them are used, and the figure says which letters none has."""

import os
import shutil

import cv2
import matplotlib
import numpy as np
import pytest

from utils.images import figure as figures
from utils.images.figure import HAS_FALLBACK, choose_fonts, new_figure, save
from utils.images.plots import draw_grid, escape_label

SHIPPED = os.path.join(os.path.dirname(matplotlib.__file__), "mpl-data", "fonts", "ttf")  # the fonts of Matplotlib
ARC = "\u2312"  # of these, STIXGeneral has it, DejaVu Sans has not
UNASSIGNED = "\U00050000"  # in no font


@pytest.fixture
def few_fonts(monkeypatch):
    """few_fonts(path, ...): only these are installed, and only `known` are in Matplotlib's list, which it returns."""

    def install(*paths, known=("DejaVuSans.ttf", "STIXGeneral.ttf")):
        files = [os.path.join(SHIPPED, name) for name in known]
        entries = [entry for entry in figures.fontManager.ttflist if entry.fname in files]
        monkeypatch.setattr(figures.fontManager, "ttflist", entries)
        monkeypatch.setattr(figures, "findSystemFonts", lambda: list(paths))
        return entries

    return install


def figure_of(*texts):
    figure = new_figure(3, 1)
    return figure, [figure.text(0.1, 0.5, text) for text in texts]


@pytest.mark.filterwarnings("ignore:Glyph 8978")  # of DejaVu Sans, drawn to compare with it
def test_a_letter_that_the_default_font_lacks_is_drawn_in_one_that_has_it(few_fonts, tmp_path):
    few_fonts()
    pixels = []
    for family, text in ((None, ARC), ("STIXGeneral", ARC), ("DejaVu Sans", ARC)):
        figure, (drawn,) = figure_of(text)
        if family:
            drawn.set_fontfamily(family)
            figure.savefig(str(tmp_path / "arc.png"), bbox_inches="tight", pad_inches=0.1)
        else:
            save(figure, str(tmp_path / "arc.png"))
        pixels.append(cv2.imread(str(tmp_path / "arc.png")))
    assert np.array_equal(pixels[0], pixels[1]) and not np.array_equal(pixels[0], pixels[2])


def test_each_text_has_as_few_fonts_as_it_needs(few_fonts):
    few_fonts()
    figure, texts = figure_of("cat", f"cat {ARC}", ARC, " ", "\u200d")
    assert choose_fonts(figure) == []
    mixed = ["DejaVu Sans", "STIXGeneral"] if HAS_FALLBACK else ["STIXGeneral"]
    families = [text.get_fontfamily() for text in texts]
    assert families[:3] == [["DejaVu Sans"], mixed, ["STIXGeneral"]]


def test_a_font_that_was_installed_after_matplotlib_made_its_list_is_used(few_fonts, tmp_path):
    bold, plain = (str(tmp_path / f"{name}.ttf") for name in ("a_bold", "b_plain"))
    shutil.copy(os.path.join(SHIPPED, "STIXGeneralBol.ttf"), bold)
    shutil.copy(os.path.join(SHIPPED, "STIXGeneral.ttf"), plain)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    others = [str(tmp_path / name) for name in ("broken.ttf", "gone.ttf")]
    entries = few_fonts(bold, plain, *others, known=("DejaVuSans.ttf",))
    figure, (text,) = figure_of(ARC)
    assert choose_fonts(figure) == [] and text.get_fontfamily() == ["STIXGeneral"]
    assert entries[-1].fname == plain


def test_letters_of_no_font_are_listed_below_the_figure(few_fonts, tmp_path):
    few_fonts(*[os.path.join(SHIPPED, name) for name in os.listdir(SHIPPED)])  # also the one that has a box for each
    figure, _ = figure_of("cat", UNASSIGNED + ARC, f"\U00050009{UNASSIGNED}")
    save(figure, str(tmp_path / "some.png"))
    assert figure.texts[-1].get_text().startswith("Letters that no installed font has: U+50000, U+50009.\n")
    figure, _ = figure_of("".join(chr(0x50000 + number) for number in range(9)))
    save(figure, str(tmp_path / "many.png"))
    assert "U+50005 and 3 more.\n" in figure.texts[-1].get_text()
    assert cv2.imread(str(tmp_path / "many.png")).shape > cv2.imread(str(tmp_path / "some.png")).shape[:1]


def test_nothing_is_noted_below_a_figure_whose_letters_are_all_drawn(tmp_path):
    figure, texts = figure_of("cat", "Ω قطة", "\u2764\ufe0f")
    save(figure, str(tmp_path / "plain.png"))
    assert figure.texts == texts


@pytest.mark.parametrize("text, width, expected", [
    ("Oxford_flower_species_number_010", 12, "Oxfor…er_010"),
    ("猫猫猫猫", 8, "猫猫猫猫"), ("猫猫猫猫猫", 8, "猫…猫猫"), ("cat 猫猫猫", 9, "cat …猫猫"), ("a$b", 3, r"a\$b"),
])  # fmt: skip
def test_labels_are_abbreviated_by_the_width_of_their_letters(text, width, expected):
    assert escape_label(text, width) == expected


@pytest.mark.parametrize("titles", [["W" * 16] * 3, ["W" * 16 + "\n99.9 %"] * 3, ["m" * 60, "", "i"]])
def test_titles_of_neighbouring_images_do_not_overlap(tmp_path, monkeypatch, titles):
    drawn = []
    monkeypatch.setattr(figures, "write_atomically", lambda files: None)
    monkeypatch.setattr(
        "utils.images.plots.save", lambda figure, path, widths: drawn.append(figure) or save(figure, path, widths)
    )
    draw_grid(str(tmp_path / "grid.png"), [np.zeros((4, 4, 3), np.uint8)] * 3, titles, "heading")
    (figure,) = drawn
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in figure.axes[0].texts[1:]]
    for left, right in zip(boxes, boxes[1:]):
        assert left.x1 < right.x0 or left.width == 0 or right.width == 0
