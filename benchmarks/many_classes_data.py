"""Fetch two image data sets with many classes: emoji by vendor and glyphs by font.

    python benchmarks/many_classes_data.py FOLDER

Writes below FOLDER, which is a cache and not a part of the repository:

- emoji/CLASS/VENDOR.png: a class is an emoji, an image is its drawing by one of four vendors, as
  the vendor's 64 x 64 PNG with transparency. 1,852 classes with 4 images each.
- glyphs.npz: a class is a Latin, Greek or Cyrillic character, an image is its glyph in one font,
  white on black, 32 x 32, scaled to a box of 24 x 24. The arrays are `images`, `labels`,
  `class_names` (U+XXXX, by label) and `fonts` (by image).

The emoji come from npm packages and the fonts from Debian packages, which are unpacked and not
installed. It needs npm, apt-get with its package lists, dpkg-deb, Pillow and Matplotlib. A data set
that is there is not fetched again.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import itertools
import shutil
import subprocess
import tarfile
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from siamese_keras.files import atomic_path

VENDORS = ("apple", "facebook", "google", "twitter")
EMOJI_VERSION = "16.0.0"
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}

# Debian packages of text fonts with Latin letters; those for headlines are few.
FONTS = """
    3270 adf-accanthis adf-baskervald adf-berenis adf-gillius adf-ikarius adf-irianis
    adf-libris adf-mekanus adf-oldania adf-romande adf-solothurn adf-switzera adf-tribun
    adf-universalis adf-verana agave allerta anonymous-pro arapey arkpandora averia-gwf
    averia-sans-gwf averia-serif-gwf b612 beteckna cabin cabinsketch campania cantarell cardo
    century-catalogue clear-sans cmu comfortaa comic-neue courier-prime croscore
    crosextra-caladea crosextra-carlito dancingscript dejavu-core dejavu-extra dkg-handwriting
    dosis dustin ebgaramond ebgaramond-extra ecolier-court engadget essays1743 eurofurence
    fantasque-sans fanwood femkeklaver firacode freefont-otf gemunu-libre georgewilliams
    gfs-artemisia gfs-baskerville gfs-bodoni-classic gfs-complutum gfs-didot gfs-didot-classic
    gfs-gazis gfs-neohellenic gfs-olga gfs-porson gfs-solomos gfs-theokritos go
    goudybookletter hack hermit humor-sans inconsolata inter isabella jetbrains-mono
    johnsmith-induni joscelyn junction junicode jura karla karmilla kaushanscript
    klaudia-berenika kristi lato league-mono league-spartan leckerli-one levien-museum
    levien-typoscript liberation lindenhill linuxlibertine lmodern lobster lobstertwo manrope
    monofur monoid mononoki national-park noto-core noto-mono ocr-a ocr-b oflb-asana-math
    okolaks oldstandard open-sans opendin opendyslexic osifont oxygen paratype play prociono
    quattrocento quicksand radisnoir roadgeek roboto-slab roboto-unhinted routed-gothic
    rufscript sil-andika sil-charis sil-doulos sil-galatia sil-gentium-basic sil-gentiumplus
    sjfonts sora staypuft stix texgyre tiresias tlwg-garuda-otf tlwg-kinnari-otf
    tlwg-laksaman-otf tlwg-loma-otf tlwg-mono-otf tlwg-norasi-otf tlwg-purisa-otf
    tlwg-sawasdee-otf tlwg-typewriter-otf tlwg-typist-otf tlwg-typo-otf tlwg-umpush-otf
    tlwg-waree-otf tomsontalks tuffy ubuntu-title urw-base35 vollkorn yanone-kaffeesatz
    yrsa-rasa
"""
FONT_PACKAGES = [f"fonts-{name}" for name in FONTS.split()]
# In the names of faces that do not draw the characters they have: symbols, keys, white boxes, and
# small capitals instead of small letters.
OTHER_DRAWINGS = (
    "D050000L",
    "Symbol",
    "Keyboard",
    "Inverted",
    " SC",
    "Smallcaps",
    "Caps",
    "Titling",
)
# Blocks: Latin to Extended-B, Greek, Cyrillic and its supplement, Latin additional, Greek extended.
RANGES = ((0x21, 0x24F), (0x370, 0x52F), (0x1E00, 0x1FFF))
BASIC_LATIN = frozenset(map(chr, (*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B))))
FONT_SHARE = 0.3  # of the fonts that must have a character, to make it a class
FONTS_PER_CLASS = 40
MAX_IMAGES = 25_000
SIDE = 32
BOX = 24
DRAW_SIZE = 128  # pixels per em of the drawing that is scaled down to the box
SEED = 0


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` and move it to `path` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as temporary:
        content = Path(temporary) / path.name
        content.mkdir()
        yield content
        content.rename(path)


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command and return what it prints; its errors go to the terminal."""
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def download_npm(package: str, folder: Path) -> Path:
    """Download the tarball of `package`, as NAME@VERSION, from npm's configured registry.

    Raises:
        ValueError: When its SHA-512 is not the one that the registry states.
    """
    cache = f"--cache={folder / 'npm-cache'}"
    integrity = run("npm", "view", cache, package, "dist.integrity").strip()
    tarball = folder / run("npm", "pack", cache, "--silent", package, cwd=folder).split()[-1]
    digest = hashlib.sha512(tarball.read_bytes()).digest()
    received = f"sha512-{base64.b64encode(digest).decode()}"
    if received != integrity:
        raise ValueError(f"`{package}` must have the integrity {integrity}. Received: {received}")
    return tarball


def fetch_emoji(folder: Path) -> Path:
    """Write `emoji/CLASS/VENDOR.png` below `folder` and return the folder `emoji`.

    Classes are the emoji that all vendors have, by their code points; variants in a skin tone are
    skipped.
    """
    emoji = folder / "emoji"
    if emoji.is_dir():
        return emoji
    with whole_folder(emoji) as writing:
        for vendor in VENDORS:
            package = f"emoji-datasource-{vendor}@{EMOJI_VERSION}"
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                tarball = download_npm(package, Path(temporary))
                print(f"{package}: {tarball.stat().st_size / 1e6:.1f} MB")
                with tarfile.open(tarball) as archive:
                    for member in archive:
                        name = PurePosixPath(member.name)
                        if name.match(f"img/{vendor}/64/*.png") and member.isfile():
                            unified = name.stem.lower()
                            file = archive.extractfile(member)
                            if file and not SKIN_TONES.intersection(unified.split("-")):
                                (writing / unified).mkdir(exist_ok=True)
                                (writing / unified / f"{vendor}.png").write_bytes(file.read())
        classes = list(writing.iterdir())
        incomplete = [c for c in classes if len(list(c.iterdir())) < len(VENDORS)]
        for c in incomplete:
            shutil.rmtree(c)
        print(f"Skipping {len(incomplete)} of {len(classes)} emoji that a vendor lacks")
    return emoji


def fetch_fonts(folder: Path) -> Path:
    """Unpack the font packages below `folder`/fonts and return that folder.

    Raises:
        FileNotFoundError: When apt knows none of the packages.
    """
    fonts = folder / "fonts"
    if fonts.is_dir():
        return fonts
    shown = subprocess.run(  # it fails when it lacks one of them
        ["apt-cache", "show", "--no-all-versions", *FONT_PACKAGES],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    lines = shown.splitlines()
    known = {line.removeprefix("Package: ") for line in lines if line.startswith("Package: ")}
    wanted = sorted(known.intersection(FONT_PACKAGES))
    if not wanted:
        raise FileNotFoundError("apt must know the font packages: run `apt-get update` first")
    with whole_folder(fonts) as writing, tempfile.TemporaryDirectory(dir=folder) as temporary:
        # It fails when one download fails, after the others.
        subprocess.run(["apt-get", "download", "--quiet=2", *wanted], cwd=temporary, check=False)
        files = {file.name.split("_")[0]: file for file in Path(temporary).glob("*.deb")}
        for package in FONT_PACKAGES:
            if package in files:
                run("dpkg-deb", "-x", str(files[package]), str(writing / package))
            else:
                print(f"Skipping {package}: apt cannot download it")
    return fonts


@dataclass(frozen=True)
class Face:
    """A font file, its full name and the characters that it has."""

    name: str
    font: ImageFont.FreeTypeFont
    characters: frozenset[str]


def load_face(path: Path) -> Face | None:
    """Return the face in the file `path`, or None when it lacks a letter of basic Latin."""
    charmap = FT2Font(str(path)).get_charmap()
    characters = frozenset(chr(code) for code, glyph in charmap.items() if glyph)  # 0: .notdef
    if not characters >= BASIC_LATIN:
        return None
    font = ImageFont.truetype(str(path), DRAW_SIZE, layout_engine=ImageFont.Layout.BASIC)
    family, style = font.getname()
    return Face(f"{family} {style}", font, characters)


def draw(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray | None:
    """Draw a character, scaled to the box and centred: uint8 [SIDE, SIDE], or None for a blank."""
    left, top, right, bottom = map(int, font.getbbox(character))
    if right <= left or bottom <= top:
        return None
    glyph = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(glyph).text((-left, -top), character, fill=255, font=font)
    ink = glyph.getbbox()
    if ink is None:
        return None
    glyph = glyph.crop(ink)
    scale = BOX / max(glyph.size)
    width, height = (max(1, round(scale * size)) for size in glyph.size)
    glyph = glyph.resize((width, height), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(glyph, ((SIDE - width) // 2, (SIDE - height) // 2))
    pixels = np.asarray(canvas)
    return pixels if pixels.any() else None


def load_faces(fonts: Path) -> list[Face]:
    """Return the faces below `fonts` that have basic Latin, each design once.

    Of files with the same name, or the same drawings of basic Latin, the one with the most
    characters is kept.
    """
    paths = sorted(p for p in fonts.rglob("*") if p.suffix.lower() in (".ttf", ".otf"))
    faces: list[Face] = []
    for path in paths:
        if path.is_symlink():
            continue
        try:
            face = load_face(path)
        except (OSError, RuntimeError, ValueError) as error:
            print(f"Skipping {path.name}: {error}")
            continue
        if face is not None and not any(word in face.name for word in OTHER_DRAWINGS):
            faces.append(face)
    seen: set[object] = set()
    chosen = []
    for face in sorted(faces, key=lambda face: (-len(face.characters), face.name)):
        drawings = [draw(face.font, character) for character in sorted(BASIC_LATIN)]
        if any(drawing is None for drawing in drawings):
            continue
        look = hashlib.sha256(b"".join(d.tobytes() for d in drawings if d is not None)).digest()
        if seen.isdisjoint({face.name, look}):
            chosen.append(face)
        seen |= {face.name, look}
    print(f"{len(paths)} font files, {len(faces)} that draw basic Latin, {len(chosen)} distinct")
    return sorted(chosen, key=lambda face: face.name)


def candidates(faces: list[Face]) -> list[str]:
    """Return the letters, marks and numbers in the ranges that enough of the faces have."""
    inside = (chr(code) for first, last in RANGES for code in range(first, last + 1))
    return [
        character
        for character in inside
        if unicodedata.category(character)[0] in "LMN"
        and sum(character in face.characters for face in faces) >= FONT_SHARE * len(faces)
    ]


def look_alikes(drawn: dict[str, dict[int, bytes]]) -> dict[str, str]:
    """Map each character to the first one of its group of look-alikes.

    Two characters are look-alikes when more than half of the faces that have both draw the same
    pixels.

    Args:
        drawn: For each character its pixels by the number of the face.
    """
    by_pixels: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for character, drawings in drawn.items():
        for face, pixels in drawings.items():
            by_pixels[face, pixels].append(character)
    alike = Counter(
        pair for group in by_pixels.values() for pair in itertools.combinations(group, 2)
    )
    first = {character: character for character in drawn}
    for (a, b), count in alike.items():
        if count > len(drawn[a].keys() & drawn[b].keys()) / 2 and first[a] != first[b]:
            kept, merged = sorted((first[a], first[b]))
            first = {c: kept if f == merged else f for c, f in first.items()}
    return first


def fetch_glyphs(folder: Path) -> Path:
    """Draw `glyphs.npz` in `folder` with Debian's fonts and return its path."""
    path = folder / "glyphs.npz"
    if path.is_file():
        return path
    faces = load_faces(fetch_fonts(folder))
    characters = candidates(faces)
    drawn: dict[str, dict[int, bytes]] = {character: {} for character in characters}
    for number, face in enumerate(faces):
        missing = draw(face.font, "\U0010fffe")  # not a character, so the font's .notdef
        for character in face.characters.intersection(characters):
            pixels = draw(face.font, character)
            if pixels is not None and not (missing is not None and (pixels == missing).all()):
                drawn[character][number] = pixels.tobytes()

    first = look_alikes(drawn)
    classes = [character for character in characters if first[character] == character]
    print(f"{len(characters)} characters, {len(classes)} without look-alikes")

    # A font without small letters may draw capitals for them: the first character keeps the image.
    seen: set[tuple[int, bytes]] = set()
    for character in classes:
        own = {n: pixels for n, pixels in drawn[character].items() if (n, pixels) not in seen}
        seen.update(own.items())
        drawn[character] = own

    rng = np.random.default_rng(SEED)
    per_class = min(FONTS_PER_CLASS, MAX_IMAGES // len(classes))
    images, labels, fonts = [], [], []
    for label, character in enumerate(classes):
        numbers = sorted(drawn[character])
        chosen = rng.choice(numbers, min(per_class, len(numbers)), replace=False)
        for number in sorted(chosen):
            images.append(np.frombuffer(drawn[character][number], np.uint8))
            labels.append(label)
            fonts.append(faces[number].name)
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            images=np.stack(images).reshape(-1, SIDE, SIDE, 1),
            labels=np.array(labels, np.int32),
            class_names=np.array([f"U+{ord(character):04X}" for character in classes]),
            fonts=np.array(fonts),
        )
    return path


def main() -> None:
    """Fetch both data sets and print their sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="cache folder, made if missing")
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    emoji = fetch_emoji(folder)
    files = list(emoji.glob("*/*.png"))
    print(f"{emoji}: {len({file.parent for file in files})} classes, {len(files)} images")
    glyphs = fetch_glyphs(folder)
    with np.load(glyphs) as arrays:
        sizes = np.bincount(arrays["labels"])
        n_fonts = len(np.unique(arrays["fonts"]))
    print(
        f"{glyphs}: {len(sizes)} classes, {sizes.sum()} images of {n_fonts} fonts, "
        f"{sizes.min()} to {sizes.max()} a class"
    )


if __name__ == "__main__":
    main()
