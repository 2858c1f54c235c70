"""The words of docs/results/distillation_quality.md; numbers are filled in by `report.py`."""

ANSWER = """
A student learns from a teacher's full distribution better than from the text alone. How much of that gap is closed
by records of a few bytes?

**Head plus draws at c = 0.04 closes {draws} % of the gap in KL to the teacher,
at {draws_bytes:.1f} bytes per token.** The goal was 95 % at no more than 26 bytes: {verdict}.

- RS-KD with 50 draws closes {sampled} %, at {sampled_bytes:.1f} bytes in the same shards
  ({sampled_own:.1f} in its authors' layout).
- RS-KD with 25 draws closes {fewer} %, at {fewer_bytes:.1f} bytes ({fewer_own:.1f}). So at equal bytes the two
  unbiased records cannot be told apart here: what the exact head saves in noise
  ([measured on gradients](../benchmarks/shard_format.md)) is less than what students of one method differ by.
- The likeliest ids alone, which are biased, fall far behind at the same bytes, with a bucket or renormalised.
"""

SETUP = """
## Setup

*Teacher.* SmolLM2-135M-Instruct (`smollm2-135m`) in float32. It ran once and left its last hidden states, from
which every full distribution over 49,152 ids is one projection away. All methods see this teacher.

*Text.* The Python standard library in windows of at most 512 tokens. {windows} windows with {train:,} predicted
tokens are for training; one window of each of {held_documents} other documents is for scoring, {held:,} positions
(every second).

*Student.* A Llama of {parameters:.1f} M parameters: 4 layers of width 128, one matrix for input and output
embeddings. That matrix starts as the teacher's, projected on its first 128 principal components; the layers start
at random.

*Training.* One pass, one window a step, AdamW with the trainer's defaults (warm-up 5 %, cosine to a tenth, clip 1)
but for its peak learning rate and its epsilon, {own} (cross-entropy only: {ce_own}), each
the best of a pilot. All methods share, seed by seed, initial weights and order. Divergences are trained on alone,
without a share of cross-entropy. The losses are the trainer's own, in bfloat16 products with float32 sums; the full
distribution's is a plain dense one in the same arithmetic.

*Records.* Every method's records were written as shards of this project and read back, quantisation included; bytes
per token are the sizes of those files over their tokens. Each file therefore carries the tokens and, at each
position, the teacher's log-probability of the realised token, its entropy, its mass on whitespace and three log Z,
whatever the method. RS-KD in the layout of its authors, 3 bytes an id, takes {sampled_own:.1f} bytes with nothing
else. The k of top 7 was chosen so that its file is as large as that of head plus draws at c = 0.04. There is one
cache for each method, its draws frozen, and three to five students of it.

*Scores.* On documents that were never trained on, against the teacher's full distribution, in float32. The share of
the gap of a method m is (cross-entropy only - m) / (cross-entropy only - full distribution). The calibration error
is the mean distance of the student's confidence from its rate of hits in ten ranges of confidence.

*Where.* Two cores of an AMD EPYC (x86_64, AVX-512 with bfloat16), no GPU, torch 2.13.0+cpu, 2026-11-23, commit
2e43b87.

    python -m benchmarks.quality --scratch DIR
"""

MEANING = """
## What it does not show

- *Scale.* Some hundred steps leave a small student far from its teacher, so this is the start of a training run. With
  more tokens the noise of unbiased records should average out further, while what a biased record teaches wrongly
  stays; with a better student the gap itself gets narrower. Neither was measured here.
- *Several passes.* Draws are frozen: a second pass sees the same ones, so their noise does not average out over passes.
- *The draws' own randomness.* There is one cache for each method, so the intervals cover students and documents, not
  other draws. That draws are unbiased is measured in
  [the format's benchmark](../benchmarks/shard_format.md).
- *Few seeds.* Three to five seeds bound the spread of students only roughly. That the share goes above 100 % at some
  seeds is that spread: one method's KL differs by some 0.03 nat from seed to seed beside what all methods share.
- *Optimisers.* AdamW divides each gradient by its own recent size, so with its usual epsilon of 1e-8 the row of a
  rare id takes full steps from gradients that are tiny. A full distribution gives every row such gradients, noisy
  records give less of them, and in a first run of one seed at that epsilon the noisy ones even came out ahead. A
  larger epsilon helps both ends of the gap (see the pilot), which is why it is tried: a method must not look good
  because its noise repairs what the optimiser does.
"""
