"""The names of all metrics and of all `mis.*` tags, wherever they are written: in MLflow, files and searches.

Their texts never change: users have runs that are found by them. The text before the slash of a metric is what MLflow
makes a section of its charts from.
"""


# Registered models.

CHAMPION = "champion"
"""The alias of the version of a registered model that is best by its validation."""

REGISTERED_NAME = "mis"
"""The name under which models are registered."""

VERSION_TAG = "mis.version"
"""The version of the registered model that a run has evaluated."""

REGISTERED_FILE = "registered/data/model.keras"
"""The file of a registered model among the artifacts of its run."""

# Metrics of each epoch.

TRAIN_LOSS = "train/loss"
"""The mean loss of an epoch's training cases."""

TRAIN_DICE = "train/dice"
"""The mean Dice of an epoch's training cases, over all regions."""

VAL_LOSS = "val/loss"
"""The mean loss of the validation cases, at full resolution."""

VAL_DICE = "val/dice"
"""The mean Dice of the validation cases, over all regions: it chooses the best epoch, trial and model."""

VAL_PREFIX = "val/"
"""Prefix of the metrics of the validation cases; `val/dice_<region>` is the Dice of one region."""

EPOCH_S = "time/epoch_s"
"""Seconds of an epoch, its validation included."""

TOTAL_S = "time/total_s"
"""Seconds of all epochs so far."""

TRACED_S = "time/traced_s"
"""Seconds by which an epoch was longer because its first step of training traced the network; else 0."""

STEP_S = "time/step_s"
"""Mean seconds of a training step."""

SAMPLES_PER_S = "time/samples_per_s"
"""Training cases a second."""

INPUT_SHARE = "time/input_share"
"""The part of a step in which it waits for its batch, from 0 to 1."""

COMMUNICATION_SHARE = "time/communication_share"
"""The part of a step that all-reduces take, from 0 to 1."""

COMPUTE_SHARE = "time/compute_share"
"""The part of a step that is left for computing, from 0 to 1."""

DEVICES = "time/devices"
"""How many devices an epoch was spread over."""

HOST_PEAK_BYTES = "memory/host_peak_bytes"
"""The most memory that the training process has had."""

DEVICE_PEAK_BYTES = "memory/device_peak_bytes"
"""The most memory that a GPU of the training process had in an epoch."""

MODEL_PARAMETERS = "model/parameters"
"""The number of trainable weights."""

MODEL_RECEPTIVE_FIELD = "model/receptive_field"
"""Voxels along an axis of the image that a voxel of the result depends on at most."""

MODEL_ACTIVATION_BYTES = "model/activation_bytes"
"""Bytes that all layers of the network put out in one step on one device."""

# Metrics of a whole training, trial, study or evaluation.

BEST_DICE = "best/dice"
"""The best validation Dice of all epochs so far."""

BEST_PREFIX = "best/"
"""Prefix of the metrics of the best epoch, e.g. `best/epoch`."""

TRIAL_S = "time/trial_s"
"""Seconds of a trial, its set-up included."""

TRACING_S = "time/tracing_s"
"""By how many seconds the first epoch of a trial took longer than its later ones: the tracing of its network."""

OUT_OF_FOLD_PREFIX = "out_of_fold/"
"""Prefix of the mean scores of cases, each by the model of the fold that was not trained on it."""

TEST_PREFIX = "test/"
"""Prefix of the metrics of the test cases."""

NOW_PREFIX = "now/"
"""Prefix of the values of a trial of a population, which change from epoch to epoch."""

CLONED_FROM = "now/cloned_from"
"""The number of the trial whose weights a trial of a population goes on from."""

TRIALS = "trials"
"""How many trials of a study have ended."""

TRIALS_FAILED = "trials_failed"
"""How many of them have failed."""

TRIALS_PER_HOUR = "trials_per_hour"
"""Trials of a study that have ended in an hour."""

DEVICE_HOURS = "device_hours"
"""Hours in which a device had a trial, added up over the devices."""

DEVICE_UTILISATION = "device_utilisation"
"""The part of a study's time in which the devices had trials, from 0 to 1."""

CONCURRENT_TRIALS = "concurrent_trials"
"""How many trials of a study run at once."""

DEVICES_PER_TRIAL = "devices_per_trial"
"""How many devices each trial of a study has."""

DATA_IN_MEMORY_BYTES = "data_in_memory_bytes"
"""Bytes of the records in the memory of each node; 0 where they are read from their files."""

COLD_S = "cold_s"
"""Seconds before a measurement's clock, in which processes were started and networks traced."""

TARGET_S = "target_s"
"""Seconds until the first trial had reached the target Dice."""

DEVICES_BUSY = "devices_busy"
"""How many devices have a trial; the step is the second of a measurement."""

WORKERS_LOST = "workers_lost"
"""How often a process of a trial was lost."""

RESTARTS = "elastic/restarts"
"""How often trials of a study were started again on other devices."""

RESTART_S = "elastic/restart_s"
"""Seconds that such a restart cost, the median; what it is taken to cost where there was none."""

SPEED_PREFIX = "elastic/speed_"
"""Prefix, before a number of devices, of how many times faster a trial was on them than on one."""

# Metrics of the comparison of the modes; their step is the number of devices.

SPEEDUP = "speedup"
"""The time on one device divided by the time on n, median over the rounds."""

SPEEDUP_MIN = "speedup_min"
"""The lowest speed-up of all rounds."""

SPEEDUP_MAX = "speedup_max"
"""The highest speed-up of all rounds."""

EFFICIENCY = "efficiency"
"""The speed-up divided by the number of devices."""

ELAPSED_S = "elapsed_s"
"""Seconds of the whole list of trials, median over the rounds; of a study, over all its sessions."""

GLOBAL_BATCH_SIZE = "global_batch_size"
"""Cases in a batch of all devices together."""

LEARNING_RATE = "learning_rate"
"""The learning rate that the batch rule gives for this number of devices."""

# Tags that name a run and say what became of it.

STUDY_TAG = "mis.study"
"""The name of the study that a run belongs to."""

COMPARISON_TAG = "mis.comparison"
"""The name of the comparison that a run belongs to."""

CELL_TAG = "mis.cell"
"""The name of a cell within its comparison."""

FOLDS_TAG = "mis.folds"
"""How many folds a study has trained; a search has no such tag."""

TRIAL_TAG = "mis.trial"
"""The name of a trial within its study."""

KIND_TAG = "mis.kind"
"""`study` for the run of a whole study; `comparison` for that of a mode that was measured, `cell` for a part of it;
`simulated` for that of a mode that was simulated."""

STATE_TAG = "mis.state"
"""What became of a trial: completed, stopped, diverged, failed or killed."""

ERROR_TAG = "mis.error"
"""Why a trial failed."""

BEST_TRIAL_TAG = "mis.best_trial"
"""The name of a study's best trial."""

PARETO_FRONT_TAG = "mis.pareto_front"
"""The names of the trials on a study's Pareto front."""

BEGUN_BY_TAG = "mis.begun_by_commit"
"""The commit of the code that began a study, or a digest of its sources where other code of the same commit went on;
`mis.git_commit` is that of the code that went on with it last."""

ENDED_BY_TAG = "mis.ended_by"
"""The parameter whose limit has ended a study."""

RECORDS_TAG = "mis.records"
"""The digest of the records that a study was run on."""

CHECKPOINT_TAG = "mis.checkpoint"
"""The name of a training's checkpoint folder, by which a training that was killed finds its run again."""

MODEL_TAG = "mis.model"
"""Which model was evaluated: that of `train` or of `tune`."""

MODE_TAG = "mis.mode"
"""The mode of scaling: `data`, `experiment`, `hybrid` or `elastic`."""

BATCH_RULE_TAG = "mis.batch_rule"
"""The batch rule of a measurement of scaling."""

LR_SCALING_TAG = "mis.lr_scaling"
"""How the learning rate follows the number of devices in a measurement of scaling."""

RESTARTED_PREFIX = "mis.restarted."
"""Prefix, before the time, of a tag for each time that workers were started again."""

CHANGED_PREFIX = "mis.changed."
"""Prefix, before a parameter's name, of the tag with its later value; the parameter itself cannot change."""

# Tags that say where a run comes from.

DVC_HASH_TAG = "mis.data.dvc_hash"
"""The DVC hash of the data set."""

DATA_ROOT_TAG = "mis.data.root"
"""The folder of the data set."""

LEFT_OUT_TAG = "mis.data.left_out"
"""The cases that were not used, with the reason."""

GIT_COMMIT_TAG = "mis.git_commit"
"""The commit's hash, with `-dirty` where tracked files differ from it."""

VERSION_PREFIX = "mis.version."
"""Prefix, before a package's name, of the tag with its version."""

MACHINE_PREFIX = "mis."
"""Prefix of the tags of the machine: `mis.host`, `mis.cpu`, ..., see `mis.track.provenance.machine`."""

# Tags that name the process which records a run.

HOST_TAG = "mis.host"
"""The host's name."""

PID_TAG = "mis.pid"
"""The process' number."""

PID_NAMESPACE_TAG = "mis.pid_namespace"
"""The namespace in which the process' number counts: a container has its own."""

STARTED_TAG = "mis.started"
"""When the process started, in seconds since 1970."""

BOOT_TAG = "mis.boot"
"""Which start of the machine the process belongs to: Linux's boot id."""

TICKS_TAG = "mis.started_ticks"
"""When the process started, in clock ticks since the start of the machine: no clock that is set changes it."""

# Tags by which what is delivered from an outbox finds its run.

RUN_KEY_TAG = "mis.run_key"
"""A random name of a run that no other tag finds again."""

OPENED_TAG = "mis.opened"
"""When the run was begun, or gone on with, for the last time, in milliseconds since 1970; later than the time before,
also where the clock of the machine was behind."""

SESSION_TAG = "mis.session"
"""The same by the clock of the process, which names the session among those of the process."""

# Tags that MLflow itself reads.

PARENT_RUN_TAG = "mlflow.parentRunId"
"""The id of the run below which MLflow shows this one."""

SOURCE_COMMIT_TAG = "mlflow.source.git.commit"
"""The commit's bare hash, which MLflow's pages show."""
