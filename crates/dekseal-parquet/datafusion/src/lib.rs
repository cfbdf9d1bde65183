//! Nothing: `examples` and `tests` use dekseal-parquet with DataFusion.
