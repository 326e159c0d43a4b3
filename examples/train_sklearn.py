"""Train a classifier and keep all of it in MLflow: parameters, metrics, an artifact, a registered model.

set -a; . ./client.env; python examples/train_sklearn.py
"""

from __future__ import annotations

import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import classification_report, f1_score
from sklearn.model_selection import train_test_split

EXPERIMENT = "example-iris"
MODEL = "example-iris-classifier"


def main() -> None:
    """One run; run it again for a second one, and for the model's next version."""
    iris = load_iris(as_frame=True)
    train_x, test_x, train_y, test_y = train_test_split(
        iris.data, iris.target, test_size=0.25, random_state=7, stratify=iris.target
    )
    parameters = {"n_estimators": 25, "max_depth": 4, "random_state": 7}

    mlflow.set_experiment(EXPERIMENT)  # server and credentials come from MLFLOW_TRACKING_*
    with mlflow.start_run(run_name="random-forest") as run:
        model = RandomForestClassifier(**parameters).fit(train_x, train_y)
        predicted = model.predict(test_x)
        mlflow.log_params(parameters)
        mlflow.log_metrics(
            {
                "accuracy": float(model.score(test_x, test_y)),
                "f1_macro": float(f1_score(test_y, predicted, average="macro")),
            }
        )
        report = classification_report(test_y, predicted, target_names=iris.target_names)
        mlflow.log_text(report, "classification_report.txt")
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(train_x, predicted),
            input_example=train_x.head(2),
            registered_model_name=MODEL,
        )

    # The server hands the artifact on from MinIO: this program has no keys to it.
    restored = mlflow.sklearn.load_model(logged.model_uri)
    assert (restored.predict(test_x) == predicted).all(), "the model that came back predicts otherwise"
    address = mlflow.get_tracking_uri()
    print(f"run:   {address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    print(f"model: {address}/#/models/{MODEL}/versions/{logged.registered_model_version}")


if __name__ == "__main__":
    main()
