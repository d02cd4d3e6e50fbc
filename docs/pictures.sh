#!/bin/sh
# The pictures of the docs, by the commands that the pages show, from the demo's folder (make demo) and headless Chromium.
# Usage: sh docs/pictures.sh [DEMO] [FOLDER]
set -eu
demo=${1:-demo}
out=${2:-docs/pictures}
mkdir -p "$out"

cmelt inspect "$demo/shards" --plot 900001_hr "$out/ecg.png"
cmelt plot "$demo/run" --out "$out/curves.png"
cmelt predict "$demo/raw/records500/900000/900009_hr.hea" --run "$demo/run" --plot "$out/predict.png"
cmelt report "$demo/run" --out "$demo/report.html"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1200,900 \
    --screenshot="$out/report.png" "file://$(cd "$demo" && pwd)/report.html"

# A palette of 64 colours: a third of the bytes, and the eye sees no difference.
python - "$out" <<'END'
import sys
from pathlib import Path

from PIL import Image

for file in Path(sys.argv[1]).glob("*.png"):
    Image.open(file).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
END
