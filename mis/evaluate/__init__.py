"""What a trained model is worth on cases that nothing has touched."""
