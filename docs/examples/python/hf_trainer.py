"""Distil a student with transformers' Trainer: python hf_trainer.py SHARDS STUDENT OUT. Run it again to resume."""

import argparse
import itertools
import json
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from student_train import Config, Distillation, learning_rate, make_optimizer


class Steps(IterableDataset):
    """The steps of a distillation, each with the batches of one update."""

    def __init__(self, distillation):
        self.distillation = distillation

    def __iter__(self):
        return self.distillation.steps()


class DistillationTrainer(Trainer):
    """A Trainer that takes data and loss from a `Distillation`."""

    loss_is_scaled_for_ga = True  # a loss is divided by the positions of its whole update, on all ranks

    def __init__(self, distillation, **named):
        super().__init__(model=distillation.model, train_dataset=Steps(distillation), **named)
        self.distillation = distillation
        self.model_accepts_loss_kwargs = True  # the same as above, before transformers 5

    def get_train_dataloader(self):
        """Return the steps as they are: the stream reads ahead by itself, and gives each rank its own rows."""
        return DataLoader(self.train_dataset, batch_size=None)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Return one step as `gradient_accumulation_steps` inputs, and the positions of all of them on all ranks."""
        step = next(epoch_iterator)
        cuts = [len(step.batches) * i // num_batches for i in range(num_batches + 1)]
        inputs = [{"batches": step.batches[start:stop]} for start, stop in itertools.pairwise(cuts)]
        return inputs, torch.tensor(step.num_positions, device=device)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Go forward and backward for each batch of an input, which holds one, or a few where rows are long."""
        total = torch.zeros((), device=self.args.device)
        for batch in inputs["batches"]:
            total += super().training_step(model, {"batch": batch}, num_items_in_batch)
        return total

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the loss of a batch. It is scaled already: by `num_items_in_batch`, or what its parts count."""
        output = self.distillation.loss(inputs["batch"], model=model)
        return (output.loss, output.terms) if return_outputs else output.loss

    def evaluate(self, *args, metric_key_prefix="eval", **named):
        """Return the measures on the held-out documents."""
        measures = self.distillation.evaluate()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir=None, _internal_call=False):
        """Write the position in the stream beside the weights."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            (folder / "distillation.json").write_text(json.dumps(self.distillation.state_dict()))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.distillation.load_state_dict(json.loads(Path(resume_from_checkpoint, "distillation.json").read_text()))


parser = argparse.ArgumentParser()
parser.add_argument("shards")  # a cache of teacher-dump: a folder or a URL
parser.add_argument("student")  # a transformers folder or hub id, with its tokenizer
parser.add_argument("out")
parser.add_argument("--max-steps", type=int, default=300)
parser.add_argument("--batch-tokens", type=int, default=4096)
parser.add_argument("--held-out", type=float, default=0.05)
parser.add_argument("--dtype", default="auto")
parser.add_argument("--save-every", type=int, default=200)
parser.add_argument("--gradient-accumulation-steps", type=int, default=2)
options = vars(parser.parse_args())
shards, out, passes = (options.pop(name) for name in ("shards", "out", "gradient_accumulation_steps"))
micro_tokens = -(-options["batch_tokens"] // passes)  # about one batch for each of Trainer's passes
config = Config(shards=(shards,), micro_tokens=micro_tokens, **options)

args = TrainingArguments(
    output_dir=out,
    max_steps=config.max_steps,
    gradient_accumulation_steps=passes,
    max_grad_norm=config.clip,
    logging_steps=1,
    save_steps=config.save_every,
    ignore_data_skip=True,  # the stream begins where the checkpoint says
    report_to="none",
    use_cpu=not torch.cuda.is_available(),  # processes of torchrun find each other on a CPU, too
)
model = AutoModelForCausalLM.from_pretrained(config.student, dtype=torch.float32).to(args.device)
distillation = Distillation(config, model)  # opens the shards, compares the tokenizers, loads no teacher
optimizer = make_optimizer(model, config)  # leave `optimizers` out for those of TrainingArguments
schedule = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda step: learning_rate(config, step=step, total=config.max_steps) / (config.learning_rate or 1.0)
)
trainer = DistillationTrainer(distillation, args=args, optimizers=(optimizer, schedule))
trainer.train(resume_from_checkpoint=get_last_checkpoint(out) if Path(out).is_dir() else None)
trainer.evaluate()
distillation.save(out)  # weights, tokenizer and chat template; or trainer.save_model()
