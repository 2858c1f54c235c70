"""The words of docs/results/distillation_quality.md; numbers are filled in by `report.py`."""

ANSWER = """
A student learns from a teacher's full distribution better than from the text alone. How much of that gap is closed
by records of a few bytes?

**Head plus draws at c = 0.04 closes {draws} % of the gap in KL to the teacher,
at {draws_bytes:.1f} bytes per token.** The goal was 95 % at no more than 26 bytes: {verdict}.

- RS-KD with 50 draws closes {sampled} %, at {sampled_bytes:.1f} bytes in the same shards
  ({sampled_own:.1f} in its authors' layout).
- RS-KD with 25 draws closes {fewer} %, at {fewer_bytes:.1f} bytes ({fewer_own:.1f}). At equal bytes the two
  unbiased records cannot be distinguished here. The exact head lowers the noise
  ([measured on gradients](../benchmarks/shard_format.md)) by less than the spread of the students of one method.
- The most probable ids alone, which are biased, fall far behind at the same bytes, with a bucket or renormalised.
"""

SETUP = """
## Setup

*Teacher.* SmolLM2-135M-Instruct (`smollm2-135m`) in float32. It ran once and stored its last hidden states. One
projection turns them into full distributions over 49,152 ids. All methods use this teacher.

*Text.* The Python standard library in windows of at most 512 tokens. {windows} windows with {train:,} predicted
tokens are for training; one window of each of {held_documents} other documents is for scoring, {held:,} positions
(every second).

*Student.* A Llama of {parameters:.1f} M parameters: 4 layers of width 128, one matrix for input and output
embeddings. That matrix starts as the teacher's, projected on its first 128 principal components; the layers start
at random.

*Training.* One pass, one window a step, AdamW with the trainer's defaults (warm-up 5 %, cosine to a tenth, clip 1)
but for its peak learning rate and its epsilon, {own} (cross-entropy only: {ce_own}), each
the best of a pilot. All methods share, seed by seed, initial weights and order. Divergences are used alone,
without cross-entropy. The losses are the trainer's own, in bfloat16 products with float32 sums; the loss
of the full distribution is a plain dense one in the same arithmetic.

*Records.* Every method's records were written as shards of this project and read back, quantisation included. Bytes
per token are the sizes of those files over their tokens. Each file therefore holds the tokens and, at each
position, the teacher's log-probability of the label, its entropy, its whitespace mass and three log Z, for every
method. RS-KD in the layout of its authors, 3 bytes an id, takes {sampled_own:.1f} bytes with nothing
else. The k of top 7 was chosen so that its file is as large as that of head plus draws at c = 0.04. Each method has one
cache with fixed draws, and three to five students.

*Scores.* They are computed in float32 on documents that were never trained on, against the teacher's full
distribution. The share of the gap of a method m is (cross-entropy only - m) / (cross-entropy only - full
distribution). The calibration error is the mean distance of the student's confidence from its rate of hits in ten
ranges of confidence.

*Where.* Two cores of an AMD EPYC (x86_64, AVX-512 with bfloat16), no GPU, torch 2.13.0+cpu, 2026-11-23, commit
2e43b87.

    python -m benchmarks.quality --scratch DIR
"""

MEANING = """
## Limits

- *Scale.* Some hundred steps leave a small student far from its teacher, so this is the start of a training run. With
  more tokens the noise of unbiased records should average out further, while the error of a biased record stays.
  With a better student the gap itself gets narrower. Neither was measured here.
- *Several passes.* Draws are fixed: a second pass sees the same ones, so their noise does not average out over passes.
- *The draws' own randomness.* Each method has one cache, so the intervals cover students and documents, not
  other draws. [The format's benchmark](../benchmarks/shard_format.md) measures that draws are unbiased.
- *Few seeds.* Three to five seeds bound the spread of students only roughly. Shares above 100 % at some
  seeds are within that spread: one method's KL differs by some 0.03 nat from seed to seed, apart from what all
  methods share.
- *Optimisers.* AdamW divides each gradient by its own recent size, so with its usual epsilon of 1e-8 the row of a
  rare id takes full steps from tiny gradients. A full distribution gives every row such gradients, and noisy
  records give fewer of them. In a first run of one seed at that epsilon the noisy ones even scored best. A larger
  epsilon improves both ends of the gap (see the pilot). It is used so that no method looks good because its noise
  compensates for the optimiser.
"""
