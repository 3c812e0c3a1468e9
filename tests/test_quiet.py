"""The import of TensorFlow."""

import pytest

IMPORT = """
import gc, json, sys, weakref
from mis.quiet import import_tensorflow

import_tensorflow()
missing = [name for name in ("sklearn", "pandas") if name not in sys.modules]
import pandas
found = {"missing": missing, "pandas": len(pandas.DataFrame()), "collects": gc.isenabled()}
found["kept"] = gc.get_freeze_count()

class Left:
    pass

left = Left()
left.itself = left
found["left"] = weakref.ref(left)
del left
import_tensorflow()
gc.collect()
found["left"] = found["left"]() is not None
print(json.dumps(found))
"""


@pytest.mark.slow
def test_tensorflow_is_imported_without_what_is_not_used_and_its_modules_are_not_collected(run_script):
    done = run_script(IMPORT)
    assert done["missing"] == ["sklearn", "pandas"]
    assert done["pandas"] == 0, "who imports it later finds it"
    assert done["collects"]
    assert done["kept"] > 100_000
    assert not done["left"], "a second call keeps nothing from the collector"
