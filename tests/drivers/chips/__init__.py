"""Chips on the fake bus, written from their data sheets: registers, commands, reset values, conversions.

=================  ==================================================
``sensirion.py``   SCD41, SGP40, SHT31: commands of words with a CRC
``texas.py``       ADS1115, INA219, TMP117: registers of 16 bits
``light.py``       VEML7700, TSL2591
``others.py``      PMSA003I, LPS22HB, AHT20
=================  ==================================================
"""
