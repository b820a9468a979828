"""A Matplotlib figure without a screen, in installed fonts that have its letters, and how it becomes a PNG file."""

import io
import logging
import os
import unicodedata
import warnings
from collections import namedtuple

from src.errors import InputError, first_line
from utils.files import write_atomically

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns about the user's files and fonts
try:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
    from matplotlib.ft2font import FT2Font
    from matplotlib.text import Text
except ImportError:
    raise
except Exception as error:  # an invalid environment variable, or a file that it names
    given = [f"{name}={os.environ[name]}" for name in ("MPLBACKEND", "MATPLOTLIBRC") if os.environ.get(name)]
    subject = " ".join(given) or "the file matplotlibrc"
    raise InputError(f"{subject}: Matplotlib cannot be imported with it ({first_line(error)})") from error

# Since 3.6, a text can have several fonts: what the first lacks is taken from the next.
HAS_FALLBACK = tuple(map(int, matplotlib.__version__.split(".")[:2])) >= (3, 6)
PLACEHOLDERS = ("Last Resort", ".LastResort")  # fonts whose letters are all boxes
MAX_LETTERS = 6  # in the footnote

# is_bold: or of another style that is not plain; letters: those of a figure that it has.
FontFile = namedtuple("FontFile", "path family is_bold letters")


def new_figure(width, height):
    """A figure of this size in inches, with 100 pixels per inch. It needs no screen."""
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def save(figure, path, widths=()):
    """Write a PNG file. A footnote lists letters that no installed font has.

    Args:
        widths: (text, inches) of each text that gets a smaller font if it is wider than that.
    """
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks
        try:
            missing = choose_fonts(figure)
            shrink_to_fit(figure, widths)
            add_footnote(figure, missing)
            figure.savefig(content, format="png", bbox_inches="tight", pad_inches=0.1)
        except Exception as error:  # a user's matplotlibrc can require what is not installed
            raise InputError(f"file {path}: Matplotlib cannot draw it ({first_line(error)})") from error
    write_atomically({path: content.getvalue()})


def choose_fonts(figure):
    """Give each text of a figure installed fonts that have its letters; returns the letters that none has, sorted."""
    texts = figure.findobj(Text)
    letters = {letter for text in texts for letter in text.get_text() if is_drawn(letter)}
    default = font_file(findfont(FontProperties()), letters)
    if default.letters == letters:
        return []
    known = {entry.fname for entry in fontManager.ttflist}
    others = [font_file(path, letters) for path in known.union(findSystemFonts())]
    fonts = [default, *sorted(filter(None, others), key=lambda font: (font.is_bold, font.path))]
    missing = set()
    for text in texts:
        chosen, lacking = cover(letters.intersection(text.get_text()), fonts)
        missing |= lacking
        for font in chosen:
            if font.path not in known:
                fontManager.addfont(font.path)  # installed since Matplotlib made its list
                known.add(font.path)
        if chosen:
            text.set_fontfamily([font.family for font in chosen])
    return sorted(missing)


def is_drawn(letter):
    """Whether a letter needs a glyph: spaces, control characters and variation selectors need none."""
    return unicodedata.category(letter) not in ("Cc", "Cf", "Zs") and not "\ufe00" <= letter <= "\ufe0f"


def font_file(path, letters):
    """The FontFile of a path; None if Matplotlib cannot use it."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # it is gone, or of a kind that Matplotlib does not know
        return None
    if not font.scalable or font.family_name.startswith(PLACEHOLDERS):
        return None
    is_bold = font.style_name not in ("Regular", "Book")
    return FontFile(path, font.family_name, is_bold, {letter for letter in letters if font.get_char_index(ord(letter))})


def cover(letters, fonts):
    """(a few of these fonts that have the letters, the default first if possible; the set of letters that none has)."""
    chosen = fonts[:1] if HAS_FALLBACK and letters & fonts[0].letters else []
    letters = letters.difference(*(font.letters for font in chosen))
    while letters and (HAS_FALLBACK or not chosen):
        best = max(fonts, key=lambda font: len(letters & font.letters))
        if not letters & best.letters:
            break
        chosen.append(best)
        letters = letters - best.letters
    return chosen, letters


def shrink_to_fit(figure, widths):
    renderer = figure.canvas.get_renderer()
    for text, inches in widths:
        excess = text.get_window_extent(renderer).width / (inches * figure.dpi)
        if excess > 1:
            text.set_fontsize(text.get_fontsize() / excess)


def add_footnote(figure, missing):
    """Below the figure, list letters that are drawn as boxes."""
    if not missing:
        return
    named = ", ".join(f"U+{ord(letter):04X}" for letter in missing[:MAX_LETTERS])
    rest = f" and {len(missing) - MAX_LETTERS} more" if len(missing) > MAX_LETTERS else ""
    text = f"Letters that no installed font has: {named}{rest}.\nInstall one that has them, such as Noto."
    bottom = figure.get_tightbbox(figure.canvas.get_renderer()).y0 / figure.get_figheight()
    figure.text(0.01, bottom - 0.1 / figure.get_figheight(), text, fontsize=7, color="dimgrey", verticalalignment="top")
