"""What is: one typed pyinfra fact a noun, all from one look at the host (`look.py`). Never a secret's value."""
