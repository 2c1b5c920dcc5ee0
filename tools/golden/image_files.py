"""Images of several kinds, and their pixels after Pillow converted and scaled them.

Writes crates/lowbit-eval/tests/golden/images/: PNG and JPEG files, and `pixels.json`, a list of
`{"file", "size": [height, width, colours], "pixels"}`.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).resolve().parents[2] / "crates/lowbit-eval/tests/golden/images"


def smooth(height, width, channels):
    """Waves of several lengths, so that JPEG keeps them closely."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 90 * np.sin(x / (5 + c) + c) * np.cos(y / (6 - c)) for c in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    noise = lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)
    images = {
        "grey.png": Image.fromarray(noise(7, 5), "L"),
        "grey_alpha.png": Image.fromarray(noise(6, 9, 2), "LA"),
        "rgb.png": Image.fromarray(noise(20, 31, 3), "RGB"),
        "rgba.png": Image.fromarray(noise(9, 9, 4), "RGBA"),
        "palette.png": Image.fromarray(noise(12, 10, 3), "RGB").quantize(7),
        "bits.png": Image.fromarray(noise(11, 13) > 127),
        "grey.jpg": Image.fromarray(smooth(24, 17, 1)[..., 0], "L"),
        "rgb.jpg": Image.fromarray(smooth(33, 40, 3), "RGB"),
        "progressive.jpeg": Image.fromarray(smooth(48, 30, 3), "RGB"),
    }
    options = {
        "grey.jpg": {"quality": 95},
        "rgb.jpg": {"quality": 95, "subsampling": 0},
        "progressive.jpeg": {"quality": 92, "progressive": True},
    }
    cases = []
    for name, image in images.items():
        image.save(OUT / name, **options.get(name, {}))
        for height, width, colours in [(8, 8, 1), (5, 12, 3), (28, 20, 3)]:
            stored = Image.open(OUT / name)
            plain = stored.convert("L" if colours == 1 else "RGB")
            if stored.mode == "RGBA":
                plain = stored.convert("RGB").convert("L" if colours == 1 else "RGB")
            scaled = plain.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(scaled).flatten().tolist()
            cases.append({"file": name, "size": [height, width, colours], "pixels": pixels})
    text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (OUT / "pixels.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
