# SPDX-License-Identifier: Apache-2.0
"""Where a VAE comes from: a folder, a single file or a bundled name -> a network with its weights and scaling."""
