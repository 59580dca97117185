"""Mathlete in other people's tools: scored in inspect_ai, logged to MLflow and TensorBoard."""
