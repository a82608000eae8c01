import os

# Before torch is loaded, and for the processes that tests start: on a busy machine, threads that wait for each other
# are not to spin meanwhile.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
