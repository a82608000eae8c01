"""Let Optuna search where branches go and how much they weigh: python examples/sweep_places.py [RECIPE] [TRIALS]

Shortback has no sweep of its own: a run is a function of a recipe, which is all that an optimizer needs. Every trial
is a run folder, scored on its validation images; `shortback report sweep` puts them on one page.
"""

import sys
from pathlib import Path

import optuna

from shortback.recipes.load import load_recipe
from shortback.runs.train import train_recipe

recipe = sys.argv[1] if sys.argv[1:] else "cifar10-resnet20"
trials = int(sys.argv[2]) if sys.argv[2:] else 3
# For a quick try on the images that ship with the package; remove these to search the recipe as it is.
base = [
    "data={kind: bundled, train_images: 1500}",
    "model.num_steps=2",
    "model.width=0.5",
    "train={epochs: 1, batch_size: 32}",
]
base += ["optimizer.kind=adamw"]


def objective(trial: optuna.Trial) -> float:
    combine = trial.suggest_categorical("combine", ["logits", "additive"])
    settings = [
        f"branches.at={trial.suggest_categorical('at', ['blocks', 'stages'])}",
        f"branches.combine={combine}",
        f"branches.start={trial.suggest_float('start', 0.1, 1.0)}",
        f"optimizer.lr={trial.suggest_float('lr', 0.002, 0.02, log=True)}",
    ]
    summary = train_recipe(
        load_recipe(recipe, settings=[*base, *settings]), Path("sweep") / f"{trial.number:03}", overwrite=True
    )
    return summary["best_val_accuracy"] or 0.0


study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(objective, n_trials=trials)
print(f"best of {trials}: {study.best_value:.1%} on the validation images, with {study.best_params}")
