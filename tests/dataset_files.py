"""Writes small data sets for tests, among them the benchmarks as they lie on a disk, with their oddities."""

import json

import cv2
import numpy as np

BOXES = [[10, 12, 8, 6], [11, 12, 8, 6], [12, 13, 8, 6]]
ROWS = "11,13,8,6\n12,13,8,6\n13,14,8,6\n"  # BOXES with the origin 1.


def write_images(folder, count=3, size=(64, 48), names="{:06d}.jpg", start=1):
  """Grey ramps; frame t has the mean grey level of about 10 (t + 1)."""
  folder.mkdir(parents=True, exist_ok=True)
  for t in range(count):
    image = np.full(size[::-1], 10 * (t + 1) % 256, np.uint8)
    # imencode + write_bytes: imwrite does not take every file name.
    (folder / names.format(t + start)).write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def write_video(path, count=3, size=(64, 48)):
  path.parent.mkdir(parents=True, exist_ok=True)
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, size)
  for t in range(count):
    writer.write(np.full((size[1], size[0], 3), 10 * (t + 1) % 256, np.uint8))
  writer.release()


def write_json(path, boxes, exist=None, key="gt_rect", **more):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({key: boxes} | ({} if exist is None else {"exist": exist}) | more))


def write_text(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(text.encode() if isinstance(text, str) else text)
  return path


def write_numbered(folder, first, last, digits=4):
  """One small image under all numbers from `first` to `last`: quick to write and enough where none is looked at."""
  write_images(folder, count=1, size=(64, 48), names=f"{{:0{digits}d}}.jpg", start=first)
  content = (folder / f"{first:0{digits}d}.jpg").read_bytes()
  for number in range(first + 1, last + 1):
    (folder / f"{number:0{digits}d}.jpg").write_bytes(content)


# The benchmarks; every function returns the root to load.


def cst_antiuav(root):
  write_images(root / "train" / "building_1")
  write_json(root / "train" / "building_1" / "IR_label.json", BOXES, [1, 1, 1], key="gt")
  write_text(root / "annos" / "train" / "building_1.txt", "10,12,8,6\n11,12,8,6\n12,13,8,6\n")
  write_text(root / "annos" / "train" / "att" / "building_1.txt", "0,0,1,1,0,0,0,1,1,0,0,2")
  write_images(root / "test" / "urban-areas_24")
  write_text(root / "annos" / "test" / "urban-areas_24.txt",
             "39.202922776720817,8.107276302443449,6.623951423543303,5.291567628192393\n0,0,0,0\n0,0.25,10,9\n")
  write_text(root / "annos" / "test" / "att" / "urban-areas_24.txt", "1,1,1,0,1,1,1,1,0,0,1,6")
  return root


def lsotb_tir(root):
  write_images(root / "sequences" / "bat_H_001" / "img", names="{:04d}.jpg")
  write_text(root / "anno" / "bat_H_001.txt", ROWS.rstrip())
  write_text(root / "anno" / "att" / "bat_H_001.txt", "0,0,0,0,1,1,1,1,0,0,0,0,0,0,0,1")
  write_images(root / "sequences" / "car_V_001" / "img", names="{:04d}.jpg")
  write_text(root / "sequences" / "car_V_001" / "groundtruth_rect.txt", ROWS.replace("\n", "\r\n"))
  return root / "sequences"


def ptb_tir(root):
  write_images(root / "tirsequences" / "airplane" / "img", names="{:08d}.jpg")
  write_text(root / "tirsequences" / "airplane" / "groundtruth_rect.txt", "1,1,5,5\n" * 3)  # Before the correction.
  write_text(root / "tiranno" / "airplane.txt", ROWS)
  write_text(root / "tiranno" / "att" / "airplane.txt", "1,1,1,1,0,0,1,0,0,1\n")
  return root / "tirsequences"


def got10k(root):
  rows = "11.0000,13.0000,8.0000,6.0000\n-1.0000,-1.0000,-1.0000,-1.0000\n13.0000,14.0000,8.0000,6.0000\n"
  for name in ("000001", "000002", "000003"):
    folder = root / "val" / f"GOT-10k_Val_{name}"
    write_images(folder, names="{:08d}.jpg")
    write_text(folder / "groundtruth.txt", rows)
    write_text(folder / "absence.label", "0\n1\n0\n")
    write_text(folder / "cover.label", "8\n0\n3\n")
    write_text(folder / "cut_by_image.label", "0\n0\n1\n")
    write_text(folder / "meta_info.ini", "[METAINFO]\nurl: https://youtu.be/x\nbegin: 00:00:01\nanno_fps: 10Hz\n"
               "object_class: bat\nresolution: (64, 48)")
  write_text(root / "val" / "list.txt", "GOT-10k_Val_000001\r\nGOT-10k_Val_000003\r\n")
  return root


def lasot(root, flat=False):
  for kind, number in (("airplane", 1), ("airplane", 10), ("bear", 2)):
    folder = (root if flat else root / kind) / f"{kind}-{number}"
    write_images(folder / "img", names="{:08d}.jpg", count=4)
    write_text(folder / "groundtruth.txt", ROWS + "1,1,-1,-1\n")
    write_text(folder / "full_occlusion.txt", "0,1,0,0")
    write_text(folder / "out_of_view.txt", "0,0,0,0\n")
    write_text(folder / "nlp.txt", "a bear")
  write_text(root / "testing_set.txt", "airplane-1\nbear-2\n")
  return root


def otb(root):
  write_numbered(root / "David" / "img", 1, 770)
  write_text(root / "David" / "groundtruth_rect.txt", "11,13,8,6\r\n" * 471)
  for name in ("Jogging", "Skating2"):
    write_images(root / name / "img", names="{:04d}.jpg")
    write_text(root / name / "groundtruth_rect.1.txt", ROWS.replace(",", "\t"))
    write_text(root / name / "groundtruth_rect.2.txt", "21 13 8 6\n22 13 8 6\n23 14 8 6\n")
  write_images(root / "Human4" / "img", names="{:04d}.jpg")
  write_text(root / "Human4" / "groundtruth_rect.1.txt", "")
  write_text(root / "Human4" / "groundtruth_rect.2.txt", ROWS)
  write_images(root / "BlurCar1" / "img", names="{:04d}.jpg", start=247)
  write_text(root / "BlurCar1" / "groundtruth_rect.txt", ROWS)
  write_images(root / "Diving" / "img", names="{:04d}.jpg")
  write_text(root / "Diving" / "groundtruth_rect.txt", ROWS)
  return root


def uav123(root):
  write_images(root / "data_seq" / "UAV123" / "bike1", names="{:06d}.jpg")
  write_numbered(root / "data_seq" / "UAV123" / "person8", 1, 1525, digits=6)
  for which in ("UAV123", "UAV20L"):
    write_text(root / "anno" / which / "bike1.txt", "11,13,8,6\nNaN,NaN,NaN,NaN\n13,14,8,6\n")
    write_text(root / "anno" / which / "att" / "bike1.txt", "1,0,0,0,1,0,0,0,0,0,0,1\n")
  write_text(root / "anno" / "UAV123" / "person8_1.txt", "11,13,8,6\n" * 1075)
  write_text(root / "anno" / "UAV123" / "person8_2.txt", "11,13,8,6\n" * 451)
  write_text(root / "anno" / "UAV20L" / "person8.txt", "11,13,8,6\n" * 1525)
  write_text(root / "configSeqs.m", "function seqs=configSeqs")
  return root


def dtb70(root):
  write_images(root / "Animal1" / "img", names="{:05d}.jpg")
  write_text(root / "Animal1" / "groundtruth_rect.txt", "11,13,8,6\n1012.5e-2,3.04,13,16\n0,0,0,0\n")
  write_text(root / "anno" / "att" / "Animal1.txt", "1,1,0,0,0,0,0,0,0,1,1\n")
  return root


LAYOUTS = {"cst_antiuav": cst_antiuav, "lsotb_tir": lsotb_tir, "ptb_tir": ptb_tir, "got10k": got10k,
           "lasot": lasot, "otb": otb, "uav123": uav123, "dtb70": dtb70}
