"""The settings of a tracker: checked, locked, the same in configs, checkpoints, flags and docs."""

import dataclasses
import json
import pathlib
import re

import pytest
from spots import Spots

from configs import base, shipped
from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import trained
from siamdff_jax.tracking import configured, settings
from siamdff_jax.tracking.settings import PLAIN, SHIPPED, Settings
from siamdff_jax.tracking.tracker import Tracker

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"


def named(group: str, name: str, of: Settings) -> object:
  return getattr(getattr(of, group), name)


def test_settings_are_locked_and_equal_ones_are_one():
  with pytest.raises(dataclasses.FrozenInstanceError):
    SHIPPED.look.tiles = 4
  with pytest.raises(dataclasses.FrozenInstanceError):
    SHIPPED.look = PLAIN.look
  same = PLAIN.replace(growth=2)
  assert same == PLAIN.replace(growth=2.0) and hash(same) == hash(PLAIN.replace(growth=2.0)) and same != PLAIN
  network = Spots()
  assert Tracker(network, same) == Tracker(network, PLAIN.replace(growth=2.0)) != Tracker(network, PLAIN)


@pytest.mark.parametrize("values, message", [
    (dict(tiles=-1), "tracker.tiles=-1: expected a whole number of at least 0"),
    (dict(tils=8), "tracker.tils: no such setting; did you mean 'tiles'"),
    (dict(velocity_rate=float("nan")), "tracker.velocity_rate=nan: expected a finite number from 0 to 1"),
    (dict(camera_compensation=1), "expected True or False"), (dict(template_update=0.7), "from 0 to 0.5"),
    (dict(lost_after=2.5), "expected a whole number")])
def test_values_that_make_no_sense_are_refused(values, message):
  with pytest.raises(UserError, match=message):
    PLAIN.replace(**values)


def test_names_are_unique_over_the_groups():
  assert len(settings.GROUP_OF) == sum(len(fields) for fields in settings.FIELDS.values())


# --- flags


def test_flags():
  given = configured.parse(PLAIN, ["tiles=8", "belief.absent_below=0.5", "camera_compensation=True"])
  assert given == PLAIN.replace(tiles=8, absent_below=0.5, camera_compensation=True)
  assert configured.parse(SHIPPED, ["plain", "tiles=4"]) == PLAIN.replace(tiles=4)
  assert configured.parse(PLAIN, ["shipped"]) == SHIPPED


@pytest.mark.parametrize("flag, message", [
    ("tiles", "expected NAME=VALUE.*plain"), ("tiles=", "tiles=: expected a whole number"),
    ("tiles=many", "=many: expected a whole number"), ("tiles=-1", "tiles=-1: expected a whole number of at least 0"),
    ("tiles=8.5", "expected a whole number"), ("tyles=8", "expected one of .*tiles.*did you mean 'tiles'"),
    ("tiles='8'", "expected a whole number"), ("tiles.more=8", "no such setting"), ("growth=inf", "=inf: expected a"),
    ("growth=1e999", "=inf: expected a finite number"), ("camera_compensation=1", "=1: expected True or False"),
    ("memory.tiles=8", "no such setting"), ("motion.rate=0.1", "did you mean 'velocity_rate'"),
    ("look={}", "no such setting"), ("template_every=0", "at least 1"),
    ("size_window_share=1", "below 1"), ("template_update=0.7", "=0.7: expected a finite number from 0 to 0.5")])
def test_flags_that_cannot_be(flag, message):
  with pytest.raises(UserError, match=message):
    configured.parse(PLAIN, [flag])


def test_a_flag_is_given_once_and_a_preset_comes_first():
  with pytest.raises(UserError, match="tiles is given twice, as 8 and 4"):
    configured.parse(PLAIN, ["tiles=8", "growth=1.5", "look.tiles=4"])
  with pytest.raises(UserError, match="'plain'.*as the first one"):
    configured.parse(SHIPPED, ["tiles=8", "plain"])


# --- configs and checkpoints


def test_a_config_is_what_is_shipped():
  for config in (base.get_config(), shipped.get_config("lite")):
    assert configured.of_config(config.tracker) == (SHIPPED, [])
    assert configured.config_problems(config.tracker, 127, "tracker") == []


def test_shipped_checkpoints_are_as_shipped():
  """Version 0.1.0 wrote them, with settings in no groups; `svanstrom` has none, a plain follower."""
  found = {name: configured.of_config(trained.load_config(name).tracker) for name in trained.shipped()}
  assert found == {"lite": (SHIPPED, []), "lite_teacher": (SHIPPED, []), "r18": (SHIPPED, []), "svanstrom": (PLAIN, [])}


def test_configs_of_earlier_versions():
  """They are in no groups, some names differ, and what they do not say was as in the plain follower."""
  old = {"growth": 2.0, "motion": {"deviation": 0.6, "rate": 0.5, "inertia": 0.1}, "found_size_change": 1.5,
         "size": {"hold": 0.1, "rate": 0.2, "window_share": 0.3}}
  expected = PLAIN.replace(growth=2.0, deviation=0.6, velocity_rate=0.5, size_hold=0.1, size_rate=0.2,
                           size_window_share=0.3)
  assert configured.of_config(old) == (expected, ["motion.inertia", "found_size_change"])


def test_a_config_survives_its_file():
  made = SHIPPED.replace(tiles=4, velocity_rate=0.25)
  assert configured.of_config(json.loads(json.dumps(made.to_dict()))) == (made, [])
  assert configured.of_config({"look": {"tiles": 4}}) == (SHIPPED.replace(tiles=4), [])


@pytest.mark.parametrize("config, message", [
    ({"tiles": 8}, "t.tiles: settings of trackers are in groups; did you mean 'look.tiles'"),
    ({"lost_aftr": 8}, "did you mean 'belief.lost_after'"),
    ({"look": {"tils": 8}}, "t.look.tils: no such setting; did you mean 'tiles'"),
    ({"look": 8}, "t.look=8: expected a group"), ({"lok": {}}, "t.lok: no such setting; did you mean 'look'"),
    ({"look": {"search_side": 130}}, r"t.look.search_side=130: expected 8 n \+ 7 and at least the 127"),
    ({"belief": {"window": 2, "absent_below": -1}}, "window=2.*absent_below=-1|absent_below=-1.*window=2")])
def test_what_is_wrong_with_a_config(config, message):
  assert re.search(message, "; ".join(configured.config_problems(config, 127, "t")))


# --- docs


def test_the_docs_show_every_setting():
  rows = [tuple(cell.strip() for cell in line.strip("|\n").split("|"))
          for line in (DOCS / "tracker.md").read_text().splitlines() if line.startswith("| `")]
  expected = []
  for group, fields in settings.FIELDS.items():
    for field in fields:
      values = [str(named(group, field.name, of)) for of in (SHIPPED, PLAIN)]
      expected.append((f"`{group}.{field.name}`", values[0], "" if values[0] == values[1] else values[1],
                       field.metadata["meaning"]))
  assert rows == expected
