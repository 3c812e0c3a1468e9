"""The 3D U-Net, its loss and its metrics, in keras.ops alone."""
