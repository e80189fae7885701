"""Put each trap of docs/engine.md back into the engine, and see its test fail.

    python -m tests.training.put_back [numbers]

Each trap is a small edit of the engine's source, made in a copy of it. A trap whose test still
passes, or cannot even run, is told and makes the status 1.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
ROOMS = ("core", "models", "ingest", "training", "bench", "tests")
FAILED = 1
"""What pytest ends with if tests ran and some failed."""


@dataclass(frozen=True)
class Trap:
    number: int
    what: str
    edits: tuple[tuple[str, str, str], ...]
    """(file in training/, what stands there once, what stands there in the trap)."""
    test: str
    """In tests/training/."""


TRAPS = [
    Trap(
        1, "a mean of the micro-batches' means",
        (("accumulate.py", "(loss.sum * scale).backward()",
          "(loss.sum / loss.count * scale).backward()"),
         ("accumulate.py", "return Totals(int(items),", "return Totals(len(micro_batches),")),
        "test_accumulate.py::test_micro_batches_of_any_sizes_give_the_full_batch",
    ),
    Trap(
        1, "each rank's own count",
        (("accumulate.py", "return Totals(int(items),", "return Totals(max(1, count),"),),
        "test_parallel.py::test_two_ranks_give_the_losses_and_weights_of_one_process[one-label-shardings0]",
    ),
    Trap(
        2, "a checkpoint written in its place",
        (("checkpoint.py", 'return path.with_name(f"{path.name}.tmp")', "return path"),
         ("checkpoint.py", "    shutil.rmtree(final, ignore_errors=True)\n", ""),
         ("checkpoint.py", "    except BaseException:\n", "    except ZeroDivisionError:\n")),
        "test_checkpoint.py::"
        "test_a_failure_while_writing_leaves_the_last_checkpoint_and_nothing_else",
    ),
    Trap(
        3, "a resume without the optimizer's state",
        (("run.py", 'self.optimizer.load_state_dict(sharding.divided(saved["optimizer"], '
          "self.optimizer))", "pass"),),
        "test_noise.py::test_a_stopped_and_resumed_run_ends_in_the_same_bits",
    ),
    Trap(
        3, "rows in an order of the process's own",
        (("batch_plan.py", "np.random.default_rng([self._seed, epoch])",
          "np.random.default_rng()"),),
        "test_noise.py::test_a_stopped_and_resumed_run_ends_in_the_same_bits",
    ),
    Trap(
        4, "augmentation drawn by the process",
        (("noise.py", "np.random.default_rng([spec.seed, epoch, int(examples.ids[row]), NOISE])",
          "np.random.default_rng()"),),
        "test_noise.py::test_what_is_drawn_depends_on_seed_epoch_and_row_alone",
    ),
    Trap(
        5, "packed rows that see each other",
        (("layout.py", "for length, count in self.runs]",
          "for length, count in ((len(self.places), 1),)]"),
         ("unpadding.py", " or not all(map(tail.alike, packed, padded))", "")),
        "test_packing.py::test_a_packed_row_gives_the_logits_and_gradients_it_gives_alone",
    ),
    Trap(
        5, "a source packed in an order of its own",
        (("layout.py", "source=cls.of(source, order))", "source=cls.of(source))"),
         ("unpadding.py", " or not all(map(tail.alike, packed, padded))", "")),
        "test_packing_pairs.py::test_packed_rows_give_the_padded_models_loss_and_gradients",
    ),
    Trap(
        6, "padding masked by its token",
        (("sequences.py", "            tensors[name] = torch.from_numpy(matrix)\n",
          "            if name == 'labels':\n"
          "                matrix[matrix == fills['input_ids']] = IGNORED\n"
          "            tensors[name] = torch.from_numpy(matrix)\n"),),
        "test_text_generation.py::test_padding_hides_no_true_end_of_text",
    ),
    Trap(
        7, "the whole chat learnt",
        (("chat.py", "    return text, learnt\n", "    return text, [(0, len(text))]\n"),),
        "test_text_generation.py::test_only_the_assistants_turns_that_count_are_learnt",
    ),
    Trap(
        8, "BOS by the template and by the tokenizer",
        (("tasks/text_generation.py", "return self._tokens(text, spans, special=False)",
          "return self._tokens(text, spans, special=True)"),),
        "test_text_generation.py::test_only_the_assistants_turns_that_count_are_learnt",
    ),
    Trap(
        9, "the checkpoint's own dtype",
        (("pretrained.py", "            config=config,\n            dtype=torch.float32,\n",
          "            config=config,\n            dtype='auto',\n"),),
        "test_text_classification.py::test_a_bf16_checkpoint_is_trained_in_fp32",
    ),
    Trap(
        10, "logits kept to the end",
        (("evaluate.py", "                task.update(metrics, loss, batch)\n",
          "                task.update(metrics, loss, batch)\n"
          "                task.kept = [*getattr(task, 'kept', []), loss]\n"),),
        "test_evaluate.py::test_what_is_kept_does_not_grow_with_the_rows",
    ),
    Trap(
        11, "tied weights that are lost",
        (("tasks/text.py", "        model.save_pretrained(folder)\n",
          "        model.config.tie_word_embeddings = False\n"
          "        model.save_pretrained(folder)\n"),),
        "test_tasks.py::test_plain_transformers_gives_the_engines_logits[chats]",
    ),
    Trap(
        12, "adapters left out of the merge",
        (("tuning.py", ".merge_and_unload()", ".unload()"),),
        "test_tuning.py::test_merged_weights_give_the_adapters_logits",
    ),
    Trap(
        13, "labels in the base model's order",
        (("labels.py", "    config.id2label = dict(enumerate(labels))\n",
          "    labels = known if set(known) == set(labels) else labels\n"
          "    config.id2label = dict(enumerate(labels))\n"),),
        "test_text_classification.py::"
        "test_a_head_whose_labels_stand_in_another_order_is_not_taken",
    ),
    Trap(
        14, "every window read from the start of its text",
        (("tasks/question_answering.py",
          'places = np.array(encoded["offset_mapping"][window], dtype=np.int32)',
          'places = np.array(encoded["offset_mapping"][owners.index(row)], dtype=np.int32)\n'
          '            places = np.resize(places, (len(inside), 2))'),),
        "test_question_answering.py::test_windows_point_at_the_answers_own_characters",
    ),
    Trap(
        15, "more characters than frames",
        (("tasks/automatic_speech_recognition.py", "        if short:\n", "        if False:\n"),),
        "test_speech.py::test_a_row_that_says_more_than_it_has_frames_for_is_named",
    ),
    Trap(
        16, "the tokenizer's BOS stripped, not the decoder's start",
        (("tasks/automatic_speech_recognition.py",
          "        start = self.config.decoder_start_token_id\n        return tokens[1:]",
          "        start = self.tokenizer.bos_token_id\n        return tokens[1:]"),),
        "test_speech.py::test_the_start_that_the_decoder_adds_is_not_learnt_twice",
    ),
    Trap(
        17, "rows with nothing to learn",
        (("tasks/text_generation.py", "        if not silent.any():\n", "        if True:\n"),),
        "test_text_generation.py::test_rows_of_which_nothing_is_left_to_learn_are_named",
    ),
    Trap(
        17, "a loss that is no number, trained on",
        (("accumulate.py", "    if lost:\n", "    if False:\n"),),
        "test_accumulate.py::"
        "test_a_loss_that_is_not_finite_names_the_rows_of_its_micro_batch",
    ),
    Trap(
        18, "dropout in an evaluation",
        (("mode.py", "    model.eval()\n", ""),),
        "test_evaluate.py::test_batches_of_any_size_give_the_means_of_all_rows_with_dropout_off",
    ),
    Trap(
        18, "no dropout after it",
        (("mode.py", "        model.train(was_training)\n", "        pass\n"),),
        "test_evaluate.py::test_the_model_is_left_in_the_mode_it_came_in",
    ),
    Trap(
        19, "decay of all parameters",
        (("optim.py", "grouped[parameter.ndim >= 2, ", "grouped[parameter.ndim >= 0, "),),
        "test_optim.py::"
        "test_decay_spares_biases_and_norms_and_frozen_parameters_take_no_state",
    ),
    Trap(
        19, "statistics of batch norms that drift",
        (("tuning.py", "    module.eval()\n", "    module.train()\n"),),
        "test_image_classification.py::test_statistics_of_batch_norms_stay_unless_from_scratch",
    ),
    Trap(
        20, "telemetry",
        (("__main__.py", '    "HF_HUB_DISABLE_TELEMETRY": "1",\n    "DO_NOT_TRACK": "1",\n', ""),),
        "test_process.py::test_the_hub_is_out_of_reach_and_told_nothing",
    ),
]  # fmt: skip


def put_back(trap: Trap, folder: Path) -> None:
    """Copy the rooms that the engine's tests need, with this trap in them."""
    for room in ROOMS:
        shutil.copytree(HERE / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "pyproject.toml", folder)
    for name, right, wrong in trap.edits:
        path = folder / "training" / name
        source = path.read_text()
        if source.count(right) != 1:
            raise SystemExit(f"Trap {trap.number}: {name} no longer has once: {right!r}")
        path.write_text(source.replace(right, wrong))


def outcome(trap: Trap, log: Path) -> int:
    """What pytest ends with on the trap's test, in a fork that has imported the libraries."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        put_back(trap, folder)
        child = os.fork()
        if child == 0:
            status = 3
            try:
                os.chdir(folder)
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(output, 1)
                os.dup2(output, 2)
                sys.path[0] = str(folder)
                # This file's own package, by which pytest would take the copy's for another.
                for name in [name for name in sys.modules if name.split(".")[0] in ROOMS]:
                    del sys.modules[name]
                import pytest

                status = int(pytest.main(["-x", "-q", f"tests/training/{trap.test}"]))
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> int:
    import peft  # noqa: F401 - before the forks, each of which would load it anew
    import scipy.stats  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401
    import transformers

    torch.set_num_threads(1)
    for name in ("Trainer", "AutoModelForSequenceClassification", "LlamaForCausalLM"):
        getattr(transformers, name)
    numbers = {int(word) for word in sys.argv[1:]}
    log = Path(tempfile.mkdtemp(prefix="put-back-")) / "pytest.log"
    print(f"The tests' output goes to {log}", flush=True)
    unseen = 0
    for trap in TRAPS:
        if numbers and trap.number not in numbers:
            continue
        status = outcome(trap, log)
        told = "seen" if status == FAILED else f"NOT SEEN, pytest ended with {status}"
        print(f"{trap.number:>2}  {trap.what}: {told}  ({trap.test})", flush=True)
        unseen += status != FAILED
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
