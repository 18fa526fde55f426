"""What a tracker said about a sequence, and the files that hold it.

    runs = results.read_folder("results/SiamDFF", sequences, "antiuav410")  # One dict of results per repetition.
    results.write("out/01_1667.json", result)

`reading` has the forms of a file, `folders` the layouts of the toolkits.
"""

from siamdff_jax.results.folders import read_folder
from siamdff_jax.results.reading import BOX_FORMS, read, read_made_of
from siamdff_jax.results.result import Result, write

__all__ = ["BOX_FORMS", "Result", "read", "read_folder", "read_made_of", "write"]
