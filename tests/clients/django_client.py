"""Django with pgvector.django, as an application uses them: django_client.py HOST USER DATABASE
SEARCH_PATH INDEX [match].

Prints one line of JSON; tests/test_pgvector_clients.py judges it.
"""

import json
import sys

import django
from django.conf import settings

host, user, database, path, index = sys.argv[1:6]
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": host,
            "USER": user,
            "NAME": database,
            "OPTIONS": {"options": f"-c search_path={path.replace(' ', '')}"},
        }
    },
    INSTALLED_APPS=["django.contrib.postgres"],
    USE_TZ=True,
)
django.setup()

from django.contrib.postgres.indexes import PostgresIndex  # noqa: E402
from django.db import connection, migrations, models  # noqa: E402
from pgvector.django import CosineDistance, VectorExtension, VectorField  # noqa: E402


class IvfIndex(PostgresIndex):
    """What it takes in Django to make an ivf index: its class by name, as for pgvector's HnswIndex."""

    suffix = "ivf"


class Item(models.Model):
    """A table with a vector of pgvector.django's."""

    id = models.IntegerField(primary_key=True)
    embedding = VectorField(dimensions=256)

    class Meta:
        app_label = "clients"
        db_table = "items"
        indexes = (
            [IvfIndex(fields=["embedding"], name="items_ivf", opclasses=["vector_cosine_ops"])]
            if index == "ivf"
            else []
        )


def at(number: int) -> list:
    return [1.0 if i == number else 0.5 if i == number + 1 else 0.0 for i in range(256)]


result = {}
try:
    state = migrations.state.ProjectState()
    with connection.schema_editor() as editor:
        VectorExtension().database_forwards("clients", editor, state, state)
    result["extension"] = "made or there"
except django.db.Error as error:
    result["extension"] = getattr(error.__cause__, "sqlstate", str(error))
with connection.schema_editor() as editor:
    editor.create_model(Item)
Item.objects.bulk_create(Item(id=number, embedding=at(number)) for number in range(20))
result["read"] = [float(x) for x in Item.objects.get(id=7).embedding] == at(7)
result["nearest"] = list(Item.objects.order_by(CosineDistance("embedding", at(7))).values_list("id", flat=True)[:3])
if sys.argv[6:] == ["match"]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT copy_create_set('items', 'items', 'id', NULL, 'embedding')")
        cursor.execute("SELECT reference FROM copy_match_descriptor(%s, 'items', 1)", [str(at(7))])
        result["matched"] = cursor.fetchone()[0]
print(json.dumps(result))
