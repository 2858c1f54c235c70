"""Distil a student in a plain PyTorch loop: python plain_loop.py SHARDS STUDENT OUT. Run it again to resume."""

import argparse
import math
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from student_train import Config, Distillation, learning_rate, make_optimizer

parser = argparse.ArgumentParser()
parser.add_argument("shards")  # a cache of teacher-dump: a folder or a URL
parser.add_argument("student")  # a transformers folder or hub id, with its tokenizer
parser.add_argument("out", type=Path)
parser.add_argument("--max-steps", type=int, default=300)
parser.add_argument("--batch-tokens", type=int, default=4096)
parser.add_argument("--held-out", type=float, default=0.05)
parser.add_argument("--dtype", default="auto")
parser.add_argument("--save-every", type=int, default=200)
args = vars(parser.parse_args())
out, shards = args.pop("out"), (args.pop("shards"),)
config = Config(shards=shards, micro_tokens=2048, **args)  # every other setting has the default of student-train
checkpoint = out / "checkpoint.pt"

device = "cuda" if torch.cuda.is_available() else "cpu"
model = AutoModelForCausalLM.from_pretrained(config.student, dtype=torch.float32).to(device).train()
distillation = Distillation(config, model)  # opens the shards, compares the tokenizers, loads no teacher
optimizer = make_optimizer(model, config)  # AdamW; any other does
if checkpoint.exists():
    stored = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(stored["model"])
    optimizer.load_state_dict(stored["optimizer"])
    distillation.load_state_dict(stored["distillation"])

for step in distillation.steps():
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step=step.number, total=distillation.total_steps)
    optimizer.zero_grad()
    loss = 0.0
    for batch in step.batches:
        output = distillation.loss(batch)
        output.loss.backward()
        loss += output.loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip or math.inf)
    optimizer.step()
    print(f"step {step.number + 1} of {distillation.total_steps}: loss {loss:.6f}", flush=True)
    if distillation.position % config.save_every == 0 or distillation.position == distillation.total_steps:
        out.mkdir(parents=True, exist_ok=True)
        parts = {"model": model, "optimizer": optimizer, "distillation": distillation}
        torch.save({name: part.state_dict() for name, part in parts.items()}, out / "incomplete.pt")
        os.replace(out / "incomplete.pt", checkpoint)

print(distillation.evaluate())  # KL to the teacher, bits per byte, ... on documents that it never trained on
distillation.save(out)  # or model.save_pretrained(out)
