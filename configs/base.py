"""What every config has, with the defaults. Not an experiment: it names no data."""

from collections.abc import Collection

import ml_collections

from input_pipeline.errors import UserError
from siamdff_jax.names import did_you_mean
from siamdff_jax.tracking.settings import SHIPPED


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(dict(
      seed=0,
      model=dict(
          backbone=dict(kind="resnet", blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), bottleneck=False,
                        stem_kernel=7, remat=False),
          features=256,  # D, channels from the neck on.
          heads=8,
          tower_depth=4,
          template_side=127,  # Crop sides in pixels: 8 n + 7.
          search_side=255,
          mean=0.45,  # Grey levels in 0..1.
          std=0.2,
          norm="batch",  # "batch", "frozen_batch" or "group".
          dtype="float32",  # Of the computation; "bfloat16" on accelerators. Parameters and losses stay float32.
          correlation_padding=0,  # Cells around the search map; each lets targets be found 8 crop pixels farther out.
          prior_channel=False,  # A privileged teacher sees the target's box as a second input channel.
          use_sten=True, use_intensity=True, use_dsfam=True, use_dcfam=True,  # The ablation switches.
      ),
      teacher=dict(checkpoint=""),
      distiller=dict(
          kind="none",  # "contextual" (ours), "fgd", "at", "cwd" or "none".
          weight=1.0,  # Of all of the distiller's terms.
          weights=dict(),  # Of single terms, --config.distiller.weights="{'NAME': 1.0}"; see siamdff_jax/distillation.
          temperature=None,  # Of the attentions; None is the kind's own.
          target_temperature=None,  # Of "contextual"'s target term.
      ),
      loss=dict(
          class_kind="focal",  # or "balanced_bce"
          box_kind="giou",  # or "giou+nwd", for tiny boxes
          quality_kind="centerness",  # or "iou"
          nwd_constant=32.0,  # Pixels of the search crop: about the size that a target has there.
          # "class" is a word of Python: on a command line "--config.loss.weights['class']=2.0".
          weights={"class": 1.0, "box": 3.0, "quality": 1.0, "presence": 0.5},
      ),
      data=dict(
          train=dict(),  # name: {format, root, weight}
          validation=dict(),
          feed="host",  # "host": read and cropped by tf.data; "device": everything in accelerator memory.
          resident_shards=1,  # "device": neighbouring devices that hold one copy of the data together.
          records="",  # Where data are packed on first use; "" is the folder `records` beside the workdir.
          workers=2,
          pairs=dict(
              max_gap=100,  # Frames between template and search at most.
              negative=0.15,  # Share of pairs without the target in the search crop.
              lookalike=0.0,  # Share of those that show a look-alike of the same sequence, where one is labelled.
              impostor=0.0,  # Share of the others that show the target of another sequence.
              shift=1.0,  # Of the search window, in target sizes.
              scale=0.35,  # Of the search window: up to 1.35 times larger or smaller.
              template_scale=0.05,
              jitter=0.0,  # Of the template's box, in shares of its sides: a first box is never exact.
              style=0.0,  # Boxes of a pair up to 1 + style times looser or tighter, alike.
          ),
          augment=dict(flip=0.5, polarity=0.2, crossover=0.0, lens=0.0, tone=0.0, halo=0.0, fade=0.15, gain=0.4,
                       blur=0.2, noise=0.3, stripes=0.15, grain=0.0, dead_pixels=0.05, equalize=0.0,
                       compression=0.0),  # Probability of each; grain: that noise and stripes are coarse.
      ),
      evaluation=dict(  # Tracking whole sequences whenever a checkpoint is saved, which then picks the best checkpoint.
          format="antiuav410", root="", only="",  # As of scripts/evaluate.py; without a root there is none.
          protocol="", metric="",  # Empty: the format's own protocol, and the first metric that it reports.
          streams=8,  # Sequences in lockstep.
      ),
      optimizer=dict(
          kind="adamw", learning_rate=1e-3, weight_decay=1e-4, warmup_steps=200, final_fraction=0.01, clip_norm=5.0,
          backbone_factor=1.0,  # The backbone's learning rate as a share of the rest's.
          backbone_freeze_steps=0,
      ),
      train=dict(
          virtual_shards=0,  # Parts of the global batch added up in one order: same bits on any device count; 0: off.
          steps=10_000, batch_size=32, accumulate=1, ema_decay=0.998, max_bad_steps=20,
          log_every=20, checkpoint_every=500, validation_pairs=256,
          profile_steps=0,  # So many steps of this start are traced into WORKDIR/profile.
          init_checkpoint="",  # Weights to start from: a workdir, a .safetensors file or a shipped model's name.
          init_backbone="",  # A PyTorch ResNet's state dict as .safetensors to start from; training/torch_weights.py.
      ),
      layout=dict(kind="pmap", fsdp=False),  # "pmap" or "mesh"; fsdp shards parameters (mesh only).
      tracker=SHIPPED.to_dict(),  # In the groups look, belief and memory; docs/tracker.md says what each does.
  ))


def require_variant(variant: str, known: Collection[str]) -> None:
  """Raises a UserError for a variant (configs/NAME.py:VARIANT) that a config does not have."""
  if variant not in known:
    raise UserError(f"no such variant, expected one of {', '.join(known)}{did_you_mean(variant, known)}")
