-- From 0.2.0 to 0.3.0. Here stands what scripts/upgrade_sql.py cannot derive: changes of tables, functions and views whose parameters,
-- result or columns changed (dropped here, made anew behind), and data that moves. One section for each change.

-- Calibrations are written by functions only, which set who made them and what they were measured on.
DROP POLICY set_owner ON copymatch.calibration;
REVOKE ALL ON copymatch.calibration FROM PUBLIC;
