"""The measures, as small pure functions over one sequence.

Boxes are xywh in pixels, float [T, 4]; T is the number of frames. A predicted row of NaN means "absent"; every
comparison with NaN is false, so such a frame is a miss at every threshold. Which frames count, and what an
absent target means, is for the protocols to say (`siamdff_jax/evaluation/protocols`).
"""

import numpy as np

from input_pipeline.geometry import iou_xywh

SUCCESS_THRESHOLDS = np.arange(21) * 0.05  # IoU 0, 0.05 .. 1.
PRECISION_THRESHOLDS = np.arange(51.0)  # Centre errors 0 .. 50 px.
NORMALIZED_THRESHOLDS = np.arange(51) * 0.01  # Centre errors 0 .. 0.5 of the target's size.


def iou(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """`geometry.iou_xywh` in float64: [T, 4], [T, 4] -> [T]."""
  return iou_xywh(np.asarray(predicted, np.float64), np.asarray(truth, np.float64))


def centers(boxes: np.ndarray) -> np.ndarray:
  """Centres [T, 2] of xywh boxes [T, 4] as all toolkits have them: xy + (wh - 1) / 2, the middle of the pixels."""
  boxes = np.asarray(boxes, np.float64)
  return boxes[:, :2] + (boxes[:, 2:] - 1) / 2


def center_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Distances of the centres in pixels: [T, 4], [T, 4] -> float64 [T]."""
  return np.sqrt(((centers(predicted) - centers(truth)) ** 2).sum(axis=1))


def normalized_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Norm of (dx / w, dy / h), w and h the true size (TrackingNet, LaSOT): [T, 4], [T, 4] -> float64 [T].

  NaN where the truth has no positive size.
  """
  wh = np.asarray(truth, np.float64)[:, 2:]
  wh = np.where(wh > 0, wh, np.nan)
  return np.sqrt((((centers(predicted) - centers(truth)) / wh) ** 2).sum(axis=1))


def success_curve(overlaps: np.ndarray) -> np.ndarray:
  """Share of frames with IoU strictly above each of SUCCESS_THRESHOLDS: [T] -> [21].

  Strictly: a perfect tracker has 0 at threshold 1, so its area under the curve is 20/21.
  """
  return (overlaps[:, None] > SUCCESS_THRESHOLDS).mean(axis=0)


def precision_curve(errors: np.ndarray, thresholds: np.ndarray = PRECISION_THRESHOLDS) -> np.ndarray:
  """Share of frames with an error of at most each threshold: [T], [K] -> [K]."""
  return (errors[:, None] <= thresholds).mean(axis=0)


def area_under_curve(curve: np.ndarray) -> float:
  """The toolkits' area under a curve: the mean of its points, not the trapezoid rule."""
  return float(np.mean(curve))


def state_accuracy(predicted: np.ndarray, truth: np.ndarray, exist: np.ndarray) -> float:
  """Anti-UAV's state accuracy (SA): IoU where the target exists, being right about absence where it does not.

  Per frame: not `exist`: 1 if the prediction is absent, else 0 (four zeros are a prediction). `exist`: the IoU, 0
  for an absent prediction; frames that exist with an all-zero truth are skipped.

  Args:
    predicted: float [T, 4], NaN rows are absent.
    truth: float [T, 4].
    exist: bool [T].

  Returns:
    The mean over the frames that count; NaN if there is none.
  """
  said_absent = np.isnan(predicted).any(axis=1)
  per_frame = np.where(exist, np.nan_to_num(iou(predicted, truth)), said_absent)
  counted = ~exist | np.asarray(truth).any(axis=1)
  return float(per_frame[counted].mean()) if counted.any() else float("nan")


def challenge_accuracy(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> float:
  """The Anti-UAV challenge's accuracy.

  `sum_t(IoU_t v_t + p_t (1 - v_t)) / T  -  0.2 (sum_t p_t v_t / T*)^0.3`, with v = target visible, p = 1 where the
  prediction is absent, T* the number of visible frames. Without visible frames nothing is subtracted (our choice;
  the formula has 0/0 there). Can be negative, down to -0.2.

  Args:
    predicted: float [T, 4], NaN rows are absent.
    truth: float [T, 4].
    visible: bool [T].
  """
  said_absent = np.isnan(predicted).any(axis=1)
  accuracy = np.where(visible, np.nan_to_num(iou(predicted, truth)), said_absent).mean()
  wrongly_absent = said_absent[visible].mean() if visible.any() else 0.0
  return float(accuracy - 0.2 * wrongly_absent**0.3)


def presence_accuracy(predicted: np.ndarray, visible: np.ndarray) -> float:
  """Share of frames in which the tracker is right about the target being there (our measure): [T, 4], [T]."""
  return float((~np.isnan(predicted).any(axis=1) == visible).mean())
