"""Everything that answers before torch is imported: help, config checks, identity, records, tables, launch, sweeps."""
