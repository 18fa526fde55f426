"""Command lines with mistakes: one sentence with the nearest right name, exit code 1, never a traceback."""

import errno
import os
import pathlib
import subprocess
import sys

import jax
import pytest
from absl import flags
from conftest import ROOT

from benchmarks import cases
from input_pipeline.errors import UserError
from siamdff_jax import config_files, flag_parsing, machine_errors
from siamdff_jax.checkpoints import trained

QUICKSTART = f"--config={ROOT}/configs/quickstart.py"


def read(*arguments, default=None):
  """The flags of a script that has some of every kind, read from a command line."""
  values = flags.FlagValues()
  flag_parsing.define_config("config", default, "", values)
  flags.DEFINE_string("workdir", None, "", flag_values=values, required=True)
  flags.DEFINE_list("box", None, "", flag_values=values)
  flags.DEFINE_multi_string("tracker", [], "", flag_values=values)
  flags.DEFINE_enum("format", None, ["antiuav", "antiuav410", "plain"], "", flag_values=values)
  flags.DEFINE_integer("streams", 8, "", lower_bound=1, flag_values=values)
  flags.DEFINE_float("context", 3.0, "", lower_bound=0.5, flag_values=values)
  flags.DEFINE_bool("redo", False, "", flag_values=values)
  if not any(argument.startswith("--workdir") for argument in arguments):
    arguments = ("--workdir=runs/here", *arguments)
  rest = flag_parsing.parse(["script", *arguments], values)
  return values, rest[1:]


def refused(*arguments) -> str:
  with pytest.raises(UserError) as caught:
    read(*arguments)
  assert "\n" not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize("arguments, message", [
    # Names of a config's values.
    (["--config.train.batchsize=4"], "config.train has no batchsize; did you mean '--config.train.batch_size'?"),
    (["--config.trian.steps=4"], "config has no trian; did you mean '--config.train'?"),
    (["--config.batch_size=4"], "config has no batch_size; did you mean '--config.train.batch_size'?"),
    (["--config.loss.weights['clas']=4"], "did you mean '--config.loss.weights['class']'?"),
    (["--config.data.train.clips.root=x"], "config.data.train has no clips"),
    (["--config.data.validation.a.root=x"], "expected all of it at once: --config.data.validation=\"{'a': VALUE}\""),
    (["--config.model.backbone.blocks[0]=3"], "(in: model.backbone.blocks[0])"),
    (["--config.train.steps.more=4"], "config.train.steps is a value, no group, expected --config.train.steps=VALUE"),
    (["--config.train-steps=4"], "--config.train-steps: not the name of a value"),
    (["--config.model.use-sten=True"], "--config.model.use-sten: not the name of a value"),
    (["--noconfig.model.use_stem"], "did you mean '--config.model.use_sten'?"),
    # Their values.
    (["--config.train.steps=abc"], "--config.train.steps=abc: expected a whole number"),
    (["--config.train.steps=1.5"], "--config.train.steps=1.5: expected a whole number"),
    (["--config.train.steps="], "--config.train.steps=: expected a whole number"),
    (["--config.optimizer.learning_rate=1e-3x"], "expected a number"),
    (["--config.model.use_sten=maybe"], "--config.model.use_sten=maybe: expected true or false"),
    (["--config.train=3"], "--config.train=3: a group of values, expected one of its own (--config.train.accumulate="),
    (["--config.model.backbone.blocks=(1, 2"], "--config.model.backbone.blocks=(1, 2: "),
    (["--config.train.steps"], "--config.train.steps: has no value, expected --config.train.steps=VALUE"),
    (["--noconfig.train.steps"], "config.train.steps is no switch, expected --config.train.steps=VALUE"),
    (["--config.train.steps=3", "--config.train={'steps': 4}"], "replaces what --config.train.steps before it has set"),
    # What is given twice.
    (["--box=1,2", "--box=5,6"], "--box is given 2 times (1,2, 5,6), expected once, its values separated by commas"),
    (["--workdir", "a", "--workdir", "b"], "--workdir is given 2 times (a, b), expected once"),
    (["--redo", "--noredo"], "--redo is given 2 times (redo, noredo)"),
    (["--config.seed=1", "--config.seed=2"], "--config.seed is given 2 times (1, 2)"),
    (["--config.model.backbone.blocks=(1,1)", "--config.model.backbone.blocks=(2,2)"], "blocks is given 2 times"),
    (["--config=other.py"], "other.py: no such config"),
    ([QUICKSTART], "--config is given 2 times"),
    # Other flags.
    (["--workdri=x"], "there is no flag --workdri; did you mean '--workdir'?"),
    (["--zzz"], "there is no flag --zzz, see --help"),
    (["--workdir="], "--workdir is empty"),
    (["--workdir"], "--workdir: has no value, expected --workdir=VALUE"),
    (["--format=antiuv410"], "=antiuv410: expected one of antiuav, antiuav410, plain; did you mean 'antiuav410'?"),
    (["--streams=0"], "--streams=0: expected a whole number of at least 1"),
    (["--streams=many"], "--streams=many: expected a whole number of at least 1"),
    (["--context=0.1"], "--context=0.1: expected a number of at least 0.5"),
    (["--context=nan"], "--context=nan: expected a finite number"), (["--context=inf"], "expected a finite number"),
    (["--redo=maybe"], "--redo=maybe: expected true or false"),
    (["--flagfile=nothing.flags"], "Unable to open flagfile: [Errno 2] No such file or directory: 'nothing.flags'"),
])
def test_a_mistake_is_one_sentence_with_what_is_right(arguments, message):
  assert message in refused(QUICKSTART, *arguments)


def test_order_and_absence_of_the_config():
  assert "comes before its config, expected behind it" in refused("--config.train.steps=4", QUICKSTART)
  assert "there is no config that it could set a value of" in refused("--config.train.steps=4")
  assert refused("--streams=4", "--workdir") == "--workdir: has no value, expected --workdir=VALUE"


def test_required_flags_are_named_together():
  values = flags.FlagValues()
  for name in ("checkpoint", "input"):
    flags.DEFINE_string(name, None, "", flag_values=values, required=True)
  with pytest.raises(UserError, match=r"^--checkpoint and --input are required \(see --help\)$"):
    flag_parsing.parse(["script"], values)


def test_command_lines_that_are_right(tmp_path):
  """In all forms, from files of flags too; flags that add up may be repeated."""
  (tmp_path / "flags").write_text("--streams=3\n--config.train.steps=7\n")
  values, rest = read("first", QUICKSTART + ":teacher", f"--flagfile={tmp_path / 'flags'}", "--config.seed", "5",
                      "--noconfig.model.use_sten", "--config.distiller.temperature=0.5", "--tracker", "tiles=8",
                      "--tracker=growth=1.5", "--config.model.backbone.blocks=(1,2,1,1)", "--box", "1,2,3,4", "--redo",
                      "--config.loss.weights['class']=2.0", "--config.distiller.weights={'context': 0.5}", "last")
  config = values["config"].value
  assert (config.train.steps, config.seed, config.model.use_sten, config.model.features) == (7, 5, False, 96)
  assert config.distiller.temperature == 0.5 and config.distiller.weights.context == 0.5
  assert config.model.backbone.blocks == (1, 2, 1, 1) and config.loss.weights["class"] == 2.0
  assert values["streams"].value == 3 and values["redo"].value and values["tracker"].value == ["tiles=8", "growth=1.5"]
  assert values["box"].value == ["1", "2", "3", "4"] and rest == ["first", "last"]


def test_a_config_by_default_takes_values_too():
  values, _ = read("--config.train.steps=7", default=f"{ROOT}/configs/svanstrom.py")
  assert values["config"].value.train.steps == 7 and not values["config"].present
  values, _ = read(QUICKSTART, default=f"{ROOT}/configs/svanstrom.py")
  assert values["config"].value.train.batch_size == 24 and values["config"].present


# --- config files


@pytest.mark.parametrize("name, message", [
    ("quickstart.py:techer", "no such variant, expected one of teacher, student; did you mean 'teacher'?"),
    ("svanstrom.py:techer", "no such variant, expected one of teacher, student; did you mean 'teacher'?"),
    ("sweep_quickstart.py:studnt", "did you mean 'student'?"), ("shipped.py:lit", "did you mean 'lite'?"),
    ("svanstrom.py:", "no such variant"),
    *((f"{name}.py:teacher", f"this config has no variants, expected {ROOT}/configs/{name}.py alone")
      for name in ("siamdff_r50", "siamdff_r18", "siamdff_lite", "ablation", "base")),
    ("svanstorm.py", "no such config, expected a file of your own or one of configs/ablation.py"),
    ("svanstorm.py", f"; did you mean '{ROOT}/configs/svanstrom.py'?"), ("lite.py", "siamdff_lite.py'?"),
    ("", "a folder, expected a file")])
def test_variants_and_names_of_configs(name, message):
  with pytest.raises(UserError) as caught:
    config_files.load(f"{ROOT}/configs/{name}")
  assert message in str(caught.value) and str(caught.value).startswith(f"{ROOT}/configs/{name}: ")


@pytest.mark.parametrize("text, message", [
    ("def get_config(:\n  pass\n", "line 1: invalid syntax"),
    ("x = 1\nimport nonsense_module\n", "line 2: ModuleNotFoundError: No module named 'nonsense_module'"),
    ("def get_config():\n  return undefined\n", "line 2: NameError: name 'undefined' is not defined"),
    ("from configs import base\ndef get_config():\n  c = base.get_config()\n  c.train.steps = 'many'\n  return c\n",
     "line 4: TypeError"),
    ("from configs import base\ndef get_config():\n  return base.get_config().trian\n", "line 3: AttributeError"),
    ("x = 1\n", "has no function get_config"), ("get_config = 3\n", "has no function get_config"),
    ("def get_config():\n  pass\n", "returns nothing, expected a ConfigDict"),
    ("def get_config():\n  return 3\n", "returns int, expected a ConfigDict"),
    ("def get_config(role):\n  return 3\n", "needs a variant, expected "),
    ("def get_config():\n  return 1 / 0\n", "line 2: ZeroDivisionError: division by zero")])
def test_a_config_file_at_fault_is_named_with_the_line(tmp_path, text, message):
  (tmp_path / "mine.py").write_text(text)
  sentence = refused(f"--config={tmp_path / 'mine.py'}")
  assert sentence.startswith(f"--config={tmp_path / 'mine.py'}: ") and message in sentence


def test_configs_by_name(tmp_path):
  (tmp_path / "mine.py").write_text("from configs import base\nget_config = base.get_config\n")
  assert cases.load("svanstrom:teacher")[1].model.features == 96
  assert cases.load("configs/siamdff_lite.py")[0] == "siamdff_lite"
  assert cases.load(str(tmp_path / "mine.py"))[1].model.features == 256
  with pytest.raises(UserError, match="did you mean 'configs/siamdff_r50.py'"):
    cases.load("siamdf_r50")


def test_names_of_shipped_models():
  with pytest.raises(UserError, match="lit: no checkpoint there, .*; did you mean 'lite'"):
    trained.find("lit")


# --- what the machine refuses


@pytest.mark.parametrize("error, message", [
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nlong\nlist"),
     "out of memory on the device .*9 bytes.*smaller --config.train.batch_size"),
    (MemoryError(), "^out of memory; smaller batches"), (MemoryError("Unable to allocate 9 GiB"), "allocate 9 GiB"),
    (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "^/data/x: No space left on device$"),
    (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "^/data/x: Permission denied$"),
    (RuntimeError("Unable to initialize backend 'tpu': INTERNAL: no libtpu (set JAX_PLATFORMS='' or so)"),
     "JAX cannot start.*'tpu': INTERNAL: no libtpu")])
def test_what_the_machine_refuses_is_one_sentence(error, message):
  sentence = machine_errors.sentence(error)
  assert "\n" not in sentence
  with pytest.raises(UserError, match=message):
    raise UserError(sentence)


@pytest.mark.parametrize("error", [AssertionError(), ValueError("shape"), RuntimeError("ours"), KeyError("x"),
                                   FileNotFoundError(errno.ENOENT, "No such file", "x")])
def test_mistakes_of_ours_keep_their_traceback(error):
  assert machine_errors.sentence(error) is None


def start(*command, **environment) -> tuple[int, list[str]]:
  """(exit code, lines on stderr)."""
  done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300, cwd=ROOT,
                        env=os.environ | environment)
  return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("script, arguments, message", [
    ("train.py", ["--config=configs/quickstart.py", "--workdir=unused", "--config.train.batchsize=4"], "batch_size"),
    ("train.py", ["--config=configs/nope.py", "--workdir=unused"], "--config=configs/nope.py: no such config"),
    ("sweep.py", ["--config=configs/sweep_quickstart.py:techer", "--workdir=unused"], "did you mean 'teacher'"),
    ("ablation.py", [], "--config and --workdir and --data are required"),
    ("track.py", ["--checkpoint=lite", "--input=a", "--input=b", "--box=1,2,3,4", "--out=unused"], "--input is given"),
    ("benchmark.py", ["step", "--config.model.heasd=3"], "did you mean '--config.model.heads'"),
    ("benchmark.py", ["step", "--batch=4,x"], "--batch=4,x: expected whole numbers of at least 1"),
    ("check_data.py", ["--format=antiuv", "--root=x"], "did you mean 'antiuav'")])
def test_scripts_end_with_one_sentence(script, arguments, message):
  code, lines = start(ROOT / "scripts" / script, *arguments)
  assert code == 1 and len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], lines
  assert not (ROOT / "unused").exists()


@pytest.mark.parametrize("variables, message", [
    ({"JAX_PLATFORMS": "cuda,cuda"}, "JAX_PLATFORMS=cuda,cuda: JAX cannot start"),
    ({"JAX_PLATFORMS": "nonsense"}, "JAX_PLATFORMS=nonsense: JAX cannot start"),
    pytest.param({"JAX_NUM_CPU_DEVICES": "abc"}, "JAX_NUM_CPU_DEVICES=abc: .*at least 1", marks=pytest.mark.end_to_end),
    pytest.param({"JAX_NUM_CPU_DEVICES": "0"}, "JAX_NUM_CPU_DEVICES=0: .*at least 1", marks=pytest.mark.end_to_end)])
def test_devices_that_are_not_there(variables, message):
  """Two programs deep, where JAX leaves itself out of the traceback."""
  code, lines = start(ROOT / "scripts" / "summary.py", "--names=svanstrom", **variables)
  assert code == 1 and len(lines) == 1, lines
  with pytest.raises(UserError, match=f"^error: {message}"):
    raise UserError(lines[0])


PROGRAM = """
import os, sys
from absl import flags
from siamdff_jax import cli

def main(_):
  {}

cli.run(main)
"""


@pytest.mark.parametrize("body, code, lines", [
    ("raise MemoryError", 1, ["error: out of memory; smaller batches, fewer --streams or --workers take less"]),
    ("raise KeyboardInterrupt", 130, ["interrupted"]), ("return 3", 3, []),
    ("print('x' * 10**6); sys.stdout.flush()", 141, []), ("print('x')", 141, [])])
def test_ends_of_a_script(tmp_path, body, code, lines):
  """Nobody reads what is printed: quietly, as of a program that SIGPIPE ends."""
  (tmp_path / "script.py").write_text(PROGRAM.format(body))
  process = subprocess.Popen([sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
  process.stdout.close()
  errors = process.stderr.read().splitlines()
  assert (process.wait(60), errors) == (code, lines)


def test_a_mistake_of_ours_ends_with_its_traceback(tmp_path):
  (tmp_path / "script.py").write_text(PROGRAM.format("raise TypeError('ours')"))
  code, lines = start(tmp_path / "script.py", PYTHONPATH=str(ROOT))
  assert code == 1 and lines[0].startswith("Traceback") and lines[-1] == "TypeError: ours"


def test_64_bits_are_left_out(tmp_path):
  """The networks' programs fail with them."""
  (tmp_path / "script.py").write_text(PROGRAM.format("import jax; print(jax.numpy.ones(1).dtype, file=sys.stderr)"))
  code, lines = start(tmp_path / "script.py", PYTHONPATH=str(ROOT), JAX_ENABLE_X64="1")
  assert code == 0 and lines == ["JAX_ENABLE_X64=1 is left out: the networks compute with 32 bits", "float32"]


@pytest.mark.end_to_end
def test_scripts_import_jax_when_they_have_read_their_flags():
  """Else a setting of JAX's that makes no sense would end them by a traceback."""
  for script in sorted(pathlib.Path(ROOT / "scripts").glob("[a-z]*.py")):
    code, lines = start(script, "--nonsense", JAX_ENABLE_X64="nonsense")
    assert (code, len(lines)) == (1, 1) and lines[0].startswith("error: there is no flag --nonsense"), (script, lines)
