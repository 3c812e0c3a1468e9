"""A synthetic data set in the layout of MSD, BraTS or nnU-Net, where no patient data is at hand.

Schematic brains with gliomas in four modalities, made to exercise and compare training, not to
resemble a cohort: a figure reached on the phantom says nothing about BraTS.

What a case is made of is sampled (`sample_case`) apart from its drawing (`render_case`). Lengths
are millimetres of the anatomy: one voxel is 1 mm at (240, 240, 155); in a smaller volume the same
brain is drawn with fewer voxels. The frame is RAS, with its origin in the middle of the volume.
"""
