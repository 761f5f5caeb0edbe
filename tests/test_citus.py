"""Tables of Citus: what copymatch does to them is kept to what Citus takes. Citus itself is not in Debian: its
catalogue is made by hand here, and what it refuses is refused by an event trigger; scripts/citus-check.sh runs
against an installed one."""

import psycopg
import pytest
from pictures import jpeg, scene

CATALOGUE = """SET allow_system_table_mods = on;
    CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char");
    GRANT SELECT ON pg_catalog.pg_dist_partition TO PUBLIC; RESET allow_system_table_mods"""
# As Citus: no trigger, no storage of a column, no volatile function in an UPDATE (of statements that
# reach the table by SPI, too).
REFUSES = """
    CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM pg_trigger t JOIN pg_dist_partition d ON t.tgrelid = d.logicalrelid
        WHERE NOT t.tgisinternal) THEN
            RAISE EXCEPTION 'triggers are not supported on distributed tables';
        END IF;
        IF EXISTS (SELECT FROM pg_attribute a JOIN pg_dist_partition d ON a.attrelid = d.logicalrelid JOIN pg_type t
        ON t.oid = a.atttypid
                   WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attstorage <> t.typstorage) THEN
            RAISE EXCEPTION 'alter table command is currently unsupported: SET STORAGE';
        END IF;
    END $$;
    CREATE EVENT TRIGGER refuse ON ddl_command_end EXECUTE FUNCTION refuse();
"""


@pytest.fixture
def spread(new_db, connect):
    db = connect(new_db())
    db.execute(CATALOGUE)
    db.execute("CREATE TABLE refs (tenant int, id int, image bytea, PRIMARY KEY (tenant, id))")
    db.execute("INSERT INTO pg_catalog.pg_dist_partition VALUES ('refs', 'h')")
    db.execute(REFUSES)
    db.heard = []
    db.add_notice_handler(lambda notice: db.heard.append((notice.message_primary, notice.message_hint)))
    return db


def fill(db, pictures: int) -> None:
    for seed in range(pictures):
        db.execute("INSERT INTO refs VALUES (%s, %s, %s)", [seed % 2, seed, jpeg(scene(seed))])


def test_a_set_over_a_spread_table_is_made_without_trigger_and_storage_and_filled_by_call(spread):
    fill(spread, 20)
    spread.execute("INSERT INTO refs VALUES (0, -1, 'no picture')")
    made = spread.execute(
        "SELECT copy_create_set('licensed', 'refs', key => 'tenant, id', image => 'image')"
    ).fetchone()
    assert made == (0,)
    ((message, hint),) = [one for one in spread.heard if "Citus" in one[0]]
    assert "21 images wait" in message and "copy_fill_set('licensed')" in hint
    assert spread.execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'refs'::regclass").fetchone() == (0,)
    spread.execute("CALL copy_fill_set('licensed')")
    assert spread.execute("SELECT count(descriptor), count(descriptor_sketch) FROM refs").fetchone() == (20, 20)
    found = "SELECT reference, verdict, verified FROM copy_match(%s, 'licensed', 1)"
    assert spread.execute(found, [jpeg(scene(4), 60)]).fetchone() == ("(0,4)", "copy", True)
    # References out of use are left out by the coordinator.
    spread.execute("SELECT copy_disable_reference('licensed', '(0,4)')")
    assert spread.execute(found, [jpeg(scene(4), 60)]).fetchone()[0] != "(0,4)"
    fill_again = "INSERT INTO refs VALUES (1, 77, %s); "
    spread.execute(fill_again, [jpeg(scene(77))])
    spread.execute("CALL copy_fill_set('licensed')")
    assert spread.execute(found, [jpeg(scene(77), 60)]).fetchone()[0] == "(1,77)"


def test_a_descriptor_may_be_written_with_the_row(spread):
    spread.execute("SELECT copy_create_set('licensed', 'refs', key => 'tenant, id', image => 'image')")
    spread.execute(
        "INSERT INTO refs (tenant, id, image, descriptor) VALUES (1, 5, %s, copy_embed(%s))", [jpeg(scene(5))] * 2
    )
    found = "SELECT reference FROM copy_match(%s, 'licensed', 1)"
    assert spread.execute(found, [jpeg(scene(5), 60)]).fetchone() == ("(1,5)",)


def test_what_a_spread_table_cannot_have_is_refused_with_a_hint(spread):
    spread.execute("SELECT copy_create_set('licensed', 'refs', key => 'tenant, id', image => 'image')")
    for call in (
        "CALL copy_reembed('licensed')",
        "SELECT copy_create_flagging('refs', 'image', 'tenant, id', 'licensed')",
    ):
        with pytest.raises(psycopg.errors.FeatureNotSupported) as error:
            spread.execute(call)
        assert "Citus" in error.value.diag.message_primary and error.value.diag.message_hint


def test_a_table_that_is_not_spread_is_as_ever(spread):
    spread.execute("CREATE TABLE own (id int PRIMARY KEY, image bytea)")
    spread.execute("INSERT INTO own VALUES (1, %s)", [jpeg(scene(1))])
    assert spread.execute("SELECT copy_create_set('own', 'own', key => 'id', image => 'image')").fetchone() == (1,)
    assert spread.execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'own'::regclass").fetchone() == (1,)
