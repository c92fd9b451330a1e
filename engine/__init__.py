"""How an adaptation runs, on mmengine's Runner."""
