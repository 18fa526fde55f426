#!/usr/bin/env bash
# The whole main job on simulated data, two CPU cores, minutes: simulate, train a teacher, distil a student, train the
# same student without distillation, track unseen sequences with all of them and with OpenCV's KCF and CSRT, compare.
#   ./scripts/quickstart.sh [FOLDER]       (default runs/quickstart; a second run goes on where the first stopped)
# QUICKSTART_STEPS shortens or lengthens the trainings.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
out="${1:-runs/quickstart}"
steps="${QUICKSTART_STEPS:-200}"
mkdir -p "$out"
export JAX_COMPILATION_CACHE_DIR="$(cd "$out" && pwd)/compiled" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }
train() {  # train ROLE NAME [MORE FLAGS]; other steps than in an earlier run of this script are meant
  python scripts/train.py --config "configs/quickstart.py:$1" --workdir "$out/$2" --allow_changes \
    --config.data.train.simulated.root="$out/train" --config.train.steps="$steps" "${@:3}"
}
evaluate() {  # evaluate FLAGS; trackers that have their results already are not run again
  python scripts/evaluate.py --format antiuav410 --root "$out/test" --out "$out/evaluation" --redo "$@"
}
# `lite` comes with the project: what the same network does after longer training.
others=(--checkpoint "$out/undistilled" --checkpoint "$out/teacher" --checkpoint lite --baselines KCF,CSRT)
in_background() {  # in_background NAME COMMAND...: two cores, two jobs; XLA does not fill two with one small network.
  "${@:2}" >"$out/$1.log" 2>&1 &
  job=$!
}
trap 'kill "${job:-}" 2>/dev/null || true' EXIT
finish() { wait "$job" || { tail -n 20 "$out/$1.log" >&2; echo "error: $1 failed, see $out/$1.log" >&2; exit 1; }; }

say "Simulating sequences to train on, and others to test on"
python scripts/simulate.py --out "$out/train" --sequences 60 --frames 40 --seed 1 --width 320 --height 256
python scripts/simulate.py --out "$out/test" --sequences 12 --frames 60 --seed 2 --width 320 --height 256
say "Training the teacher and, beside it, the student without distillation (log: $out/undistilled.log)"
in_background undistilled train student undistilled --config.distiller.kind=none
train teacher teacher
finish undistilled
say "Distilling the student from the teacher; beside it the others track the test sequences (log: $out/others.log)"
in_background others evaluate "${others[@]}" --clips 0
train student student --config.teacher.checkpoint="$out/teacher"
finish others
say "Tracking with the student, and comparing"
evaluate --checkpoint "$out/student" "${others[@]}" --videos 1
say "Done; look at $out/evaluation/report.html and $(ls "$out"/evaluation/student/videos/*.mp4)"
