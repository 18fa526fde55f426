"""Small recordings as cameras and programs leave them, for the tests of what is read."""

import pathlib
import subprocess

import cv2
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def recording(count: int = 30, height: int = 128, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
  """A bright box of 10x7 pixels over a textured background: uint8 [T, H, W], and its boxes [T, 4]."""
  rng = np.random.default_rng(0)
  ground = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 2)
  frames = 90 + 15 * ground / ground.std() + rng.normal(size=(count, height, width))
  boxes = np.array([[30.0 + 2 * t, 40.0 + t, 10.0, 7.0] for t in range(count)])
  for frame, (x, y, w, h) in zip(frames, boxes.astype(int), strict=True):
    frame[y:y + h, x:x + w] = 220
  return np.clip(frames, 0, 255).astype(np.uint8), boxes


def counts(frames: np.ndarray) -> np.ndarray:
  """The same as 14-bit counts of a radiometric camera, uint16."""
  return (7310 + frames.astype(np.uint16)).astype(np.uint16)


def all_of(source) -> np.ndarray:
  """All frames of a source, [T, H, W]."""
  return np.stack(list(source))


def encode(path: pathlib.Path, frames: np.ndarray, *options: str, rate: float = 30) -> pathlib.Path:
  """Writes uint8 or uint16 [T, H, W] as a video by ffmpeg; `options` name the codec, pixel format and so on."""
  height, width = frames.shape[1:]
  kind = "gray" if frames.dtype == np.uint8 else "gray16le"
  subprocess.run([FFMPEG, "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", kind, "-s", f"{width}x{height}", "-r",
                  str(rate), "-i", "-", *options, str(path)], input=frames.tobytes(), check=True)
  return path


def motion_jpeg(path: pathlib.Path, frames: np.ndarray) -> pathlib.Path:
  """An .avi with a JPEG per frame."""
  return encode(path, frames, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p")


def chunks(content: bytes) -> list[tuple[int, int]]:
  """(place, length) of the frames' data in an .avi file of one stream."""
  found, at, end = [], content.index(b"movi") + 4, content.index(b"idx1")
  while at < end:
    size = int.from_bytes(content[at + 4:at + 8], "little")
    found.append((at + 8, size))
    at += 8 + size + size % 2
  return found


def damage(path: pathlib.Path, number: int) -> pathlib.Path:
  """Zeroes the data of one frame of an .avi file."""
  content = bytearray(path.read_bytes())
  place, size = chunks(bytes(content))[number]
  content[place:place + size] = bytes(size)
  path.write_bytes(content)
  return path


def cut(path: pathlib.Path) -> pathlib.Path:
  """Keeps the first half of a file."""
  content = path.read_bytes()
  path.write_bytes(content[:len(content) // 2])
  return path


def images(folder: pathlib.Path, frames: np.ndarray, suffix: str) -> list[pathlib.Path]:
  """An image file per frame."""
  folder.mkdir(parents=True, exist_ok=True)
  paths = [folder / f"{t:03d}{suffix}" for t in range(len(frames))]
  for path, frame in zip(paths, frames, strict=True):
    path.write_bytes(cv2.imencode(suffix, frame)[1].tobytes())
  return paths
