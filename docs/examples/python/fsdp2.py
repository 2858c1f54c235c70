"""Distil a student with FSDP2: torchrun --nproc-per-node 2 fsdp2.py SHARDS STUDENT OUT. Run it again to resume.

The structure is that of torchtitan: one device mesh, `fully_shard` on each layer and then on the model, and checkpoints
of torch.distributed.checkpoint, which another number of ranks can continue.
"""

import argparse
import math
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import AutoModelForCausalLM

from student_train import Config, Distillation, learning_rate, make_optimizer


class Weights:
    """Parameters and optimiser, as torch.distributed.checkpoint writes and reads them."""

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer

    def state_dict(self):
        """Return this rank's shards."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state):
        """Take this rank's shards."""
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def shard(model, device):
    """Shard the parameters over all ranks: each layer by itself, the rest with the output projection."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule) and device.type == "cpu":
            module.set_force_sum_reduction_for_comms(True)  # gloo adds up only; FSDP then divides by itself


def train(config, out, device):
    """Train to the last step, and write the student to `out`."""
    model = AutoModelForCausalLM.from_pretrained(config.student, dtype=torch.float32).to(device).train()
    distillation = Distillation(config, model)  # before sharding: it runs a few rows
    shard(model, device)
    optimizer = make_optimizer(model, config)  # after sharding: it keeps this rank's part
    parts = {"weights": Weights(model, optimizer), "distillation": distillation}
    complete = [path.parent for path in out.glob("step-*/.metadata")]
    if complete:
        dcp.load(parts, checkpoint_id=max(complete, key=lambda folder: int(folder.name.removeprefix("step-"))))
    for step in distillation.steps():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step=step.number, total=distillation.total_steps)
        optimizer.zero_grad()
        loss = torch.zeros((), device=device)
        for batch in step.batches:  # as many on each rank
            output = distillation.loss(batch)
            output.loss.backward()  # FSDP averages gradients over ranks, and the loss is scaled for that
            loss += output.loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip or math.inf)
        optimizer.step()
        dist.all_reduce(loss)
        if dist.get_rank() == 0:
            mean = loss.item() / dist.get_world_size()
            print(f"step {step.number + 1} of {distillation.total_steps}: loss {mean:.6f}", flush=True)
        if distillation.position % config.save_every == 0 or distillation.position == distillation.total_steps:
            dcp.save(parts, checkpoint_id=out / f"step-{distillation.position}")
    measures = distillation.evaluate()
    if dist.get_rank() == 0:
        print(measures)
    distillation.save(out)


def main():
    """Read the command line, and join the ranks that torchrun started."""
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
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    train(Config(shards=shards, micro_tokens=2048, **args), out, device)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
