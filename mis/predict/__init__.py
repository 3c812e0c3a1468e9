"""From a model and images to label maps that lie on the images."""
