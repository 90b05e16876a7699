"""What training and asking a model take, from its sizes alone: bytes, FLOPs, GPU hours. No torch.

Every formula is checked against counted FLOPs or measured bytes of small models (`tests/costs`).
"""
